"""A flood on a procedural world: what radar sees of it, and where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import modalities
from terramind_xr.synthetic.fields import fractal, lattice, node_positions, refine, stream
from terramind_xr.synthetic.radar import speckle

if TYPE_CHECKING:
    import xarray as xr

_WATER, _TREES, _BUILT = 1, 2, 5
# Set by hand, in dB (VV, VH): open water as in `radar`; below trees and between walls the signal comes back
# twice reflected, which brightens VV more than VH (e.g. N. Pierdicca et al. 2018, doi:10.3390/rs10081283).
_OPEN = (-20.0, -27.0)
_BRIGHTER = {_TREES: (3.5, 1.5), _BUILT: (2.5, 1.0)}
_SCALES = (260, 90, 30)
"""Sizes of the flooded areas, in pixels."""


def flood(ds: xr.Dataset, seed: int = 0, share: float = 0.25) -> xr.Dataset:
    """Flood a scene: new radar numbers, the optical ones of before, and where the flood is.

    Open land under water looks as still water does, which was there before; flooded forests and towns are
    brighter than dry ones. So neither radar nor the optical picture of before is enough to map it.

    Parameters
    ----------
    ds
        From `scene`, with S1GRD and LULC; it is read into memory.
    seed
        Of the flood.
    share
        Of the scene that the flood covers, permanent water included.

    Returns
    -------
    xarray.Dataset
        The same with S1GRD during the flood, and ``flood`` (y, x): 1 flooded, 0 dry or permanent water.

    Raises
    ------
    InputError
        S1GRD or LULC are missing, or there are several dates.
    OptionError
        `share` is not between 0 and 1.

    Examples
    --------
    >>> from terramind_xr import synthetic
    >>> ds = synthetic.flood(synthetic.scene(256, modalities=("S2L1C", "S1GRD", "LULC")))
    >>> ds.flood.attrs["flag_meanings"], bool(0 < ds.flood.mean() <= 0.25)
    ('dry flooded', True)
    """
    missing = [name for name in ("S1GRD", "LULC") if name not in ds]
    if missing or "time" in ds.dims:
        raise InputError(
            f"flood: found {', '.join(map(str, ds.data_vars))} along {tuple(map(str, ds.dims))}, expected "
            "S1GRD and LULC of one date: synthetic.scene(448, modalities=('S2L1C', 'S1GRD', 'LULC'))."
        )
    if not 0 < share < 1:
        raise OptionError(f"share={share!r} cannot be used: expected a number between 0 and 1.")
    cover = ds["LULC"].values
    height, width = cover.shape
    rows, columns = node_positions(0, height), node_positions(0, width)
    v, u = (np.ascontiguousarray(axis) for axis in np.meshgrid(rows, columns, indexing="ij"))
    field = refine(fractal(seed, "flood/extent", v, u, _SCALES), 0, 0, height, width)
    flooded = (field > np.quantile(field, 1 - share)) & (cover != _WATER)
    radar = ds["S1GRD"].transpose(..., "y", "x")
    return ds.assign(
        S1GRD=radar.copy(data=_seen(radar.values, cover, flooded, seed)),
        flood=(
            ("y", "x"),
            flooded.astype(np.uint8),
            {"long_name": "flood", "flag_values": [0, 1], "flag_meanings": "dry flooded"},
        ),
    )


def _seen(radar: Any, cover: Any, flooded: Any, seed: int) -> Any:
    """Backscatter during the flood, (VV and VH, y, x)."""
    height, width = cover.shape
    result = radar.copy()
    for number, name in enumerate(modalities["S1GRD"].band_names):
        looks = lattice(stream(seed, f"flood/{name}"), np.arange(height), np.arange(width))
        open_water = np.float32(_OPEN[number]) + speckle(looks)
        result[number] = np.where(flooded, open_water, radar[number])
        for code, gain in _BRIGHTER.items():
            covered = flooded & (cover == code)
            result[number][covered] = radar[number][covered] + np.float32(gain[number])
    return result
