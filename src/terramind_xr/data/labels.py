"""Which band a label means: the only place where names become bands. Nothing is matched by position."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from terramind_xr.facts import Band, Modality, modalities

if TYPE_CHECKING:
    import xarray as xr

BAND_DIMS = (
    "band", "bands", "wavelength", "common_name", "band_name", "channel", "variable", "polarization",
    "polarisation", "pol",
)  # fmt: skip
"""Names of dimensions that are taken for the band dimension; ``band_*`` and ``*_band`` are, too."""

LABEL_COORDS = ("band_name", "common_name", "eo:common_name", "name", "long_name", "title", "description")
WAVELENGTH_COORDS = ("wavelength", "center_wavelength", "centre_wavelength")
LABEL_ATTRS = ("long_name", "descriptions", "band_names", "band_name", "common_name")
# "B4, central wavelength 665 nm" (GDAL), "B04 (red)", "B04 - red", "B04_10m" (CDSE); but not "B04_mask".
_LEADING_NAME = re.compile(r"(b\d{1,2}a?)(?:_(?:10|20|60)m|\s*[,(:].*|\s+-\s.*)?")


@dataclass(frozen=True)
class Labels:
    """Labels of the positions along a band dimension, and where they come from."""

    source: str
    values: tuple[Any, ...]

    @property
    def is_named(self) -> bool:
        """Whether they say anything about a band, unlike counts and ``Band 1``."""
        return any(isinstance(value, str) and not is_generic(value) for value in self.values)


def is_generic(label: str) -> bool:
    """Whether a label is a mere placeholder, as writers put in for bands without names.

    Examples
    --------
    >>> is_generic("Band 1"), is_generic("bands"), is_generic("B1")
    (True, True, False)
    """
    return re.fullmatch(r"(?:bands?|layers?|channels?)?[\s_-]*\d*", label.strip().lower()) is not None


def band_of(label: str | float, modality: Modality) -> str | None:
    """Name of the band of a modality that a label means, or None.

    Parameters
    ----------
    label
        ESA, STAC or terratorch name in any case; a number is a centre wavelength in nm or µm.
    modality
        Where it has some of its bands only, what means another one means none.

    Examples
    --------
    >>> from terramind_xr.facts import modalities
    >>> [band_of(label, modalities["S2L2A"]) for label in ("b8a", "Red Edge 1", "B2 (blue)", 0.665, 1)]
    ['B8A', 'B05', 'B02', 'B04', None]
    """
    # All bands compete: the nearest of a few in wavelength could be a wrong one.
    every = modalities[modality.name].bands
    name = _named(label, every) if isinstance(label, str) else _band_at(float(label), every)
    return name if name in modality.band_names else None


def _named(label: str, bands: Sequence[Band]) -> str | None:
    text = label.strip().lower()
    full = re.sub(r"[\s\-.]+", "_", text)
    leading = _LEADING_NAME.fullmatch(text)
    for band in bands:
        if full in band.names or (leading is not None and leading[1] in band.names):
            return band.name
    return None


def _band_at(wavelength: float, bands: Sequence[Band]) -> str | None:
    if not math.isfinite(wavelength):
        return None
    nanometres = wavelength * 1000 if wavelength < 100 else wavelength  # else it is in micrometres
    optical = [band for band in bands if not math.isnan(band.wavelength)]
    near = min(optical, key=lambda band: abs(band.wavelength - nanometres), default=None)
    return near.name if near is not None and abs(near.wavelength - nanometres) <= near.width / 2 else None


def match(labels: Iterable[Any], modality: Modality) -> dict[str, list[int]]:
    """Positions of the labels that mean each band; bands without any are absent."""
    found: dict[str, list[int]] = {}
    for position, label in enumerate(labels):
        name = band_of(label, modality)
        if name is not None:
            found.setdefault(name, []).append(position)
    return found


def band_dim(data: xr.DataArray, spatial: Sequence[str]) -> str | None:
    """Name of the band dimension, or None."""
    rest = [str(dim) for dim in data.dims if dim not in spatial]
    for name in BAND_DIMS:
        if name in rest:
            return name
    return next((dim for dim in rest if dim.startswith("band_") or dim.endswith("_band")), None)


def labels_along(data: xr.DataArray, dim: str) -> list[Labels]:
    """Everything that names the positions along `dim`, the most telling first; reads no pixel."""
    size = data.sizes[dim]
    along = {str(name): coord for name, coord in data.coords.items() if coord.dims == (dim,)}
    found = []
    for name in dict.fromkeys((dim, *LABEL_COORDS)):
        if name in along and along[name].dtype.kind in "OUST":
            found.append(Labels(f"coordinate {name!r}", _texts(along[name].values)))
    for name in LABEL_ATTRS:
        value = data.attrs.get(name)
        if isinstance(value, str) and size == 1:
            value = (value,)
        if isinstance(value, list | tuple | np.ndarray) and len(value) == size:
            found.append(Labels(f"attribute {name!r}", _texts(value)))
    for name in WAVELENGTH_COORDS:
        if name in along and along[name].dtype.kind in "iuf":
            found.append(Labels(f"coordinate {name!r}", tuple(map(float, along[name].values))))
    return found


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    decoded = (value.decode() if isinstance(value, bytes) else value for value in values)
    return tuple("" if value is None else str(value) for value in decoded)


def best_labels(
    data: xr.DataArray, dim: str, modality: Modality
) -> tuple[Labels | None, dict[str, list[int]]]:
    """The labels along `dim` that match the most bands of a modality, and the match."""
    best: Labels | None = None
    matched: dict[str, list[int]] = {}
    for labels in labels_along(data, dim):
        found = match(labels.values, modality)
        if best is None or len(found) > len(matched):
            best, matched = labels, found
    return best, matched
