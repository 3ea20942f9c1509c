"""Classes that the attributes of a map name: codes, names and colours. Reads no pixel."""

from __future__ import annotations

import numpy as np
import xarray as xr

from terramind_xr.data.metadata import number
from terramind_xr.facts import LandCoverClass, lulc_classes


def named_classes(data: xr.DataArray) -> tuple[LandCoverClass, ...]:
    """Classes of a map, by CF's ``flag_values`` and ``flag_meanings``, or as a LULC map; empty without any.

    True and false are no codes, though what is compared (``lulc == 3``) keeps its name and attributes.

    Colours are those of ``flag_colors``, else those of the LULC classes for a LULC map, else matplotlib's.

    Examples
    --------
    >>> attrs = {"flag_values": [0, 5], "flag_meanings": "land water", "flag_colors": "#ffffff #0000ff"}
    >>> [(each.code, each.name, each.color) for each in named_classes(xr.DataArray(0, attrs=attrs))]
    [(0, 'land', '#ffffff'), (5, 'water', '#0000ff')]
    """
    if data.dtype.kind == "b":
        return ()
    is_lulc = "LULC" in (data.attrs.get("modality"), data.name)
    codes = [number(code) for code in np.ravel(data.attrs.get("flag_values", [])).tolist()]
    names = str(data.attrs.get("flag_meanings", "")).split()
    if not names or len(codes) != len(names) or not all(_is_code(code) for code in codes):
        return lulc_classes if is_lulc else ()
    colors = str(data.attrs.get("flag_colors", "")).split()
    if len(colors) != len(names):
        colors = _colors(
            len(names), {each.name: each.color for each in lulc_classes} if is_lulc else {}, names
        )
    return tuple(
        LandCoverClass(int(code), name, color)
        for code, name, color in zip(codes, names, colors, strict=True)
        if code is not None
    )


def _is_code(value: float | None) -> bool:
    return value is not None and value == value and float(value).is_integer()


def _colors(count: int, known: dict[str, str], names: list[str]) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    palette = colormaps["tab10" if count <= 10 else "tab20"]
    return [known.get(name, to_hex(palette(place % palette.N))) for place, name in enumerate(names)]
