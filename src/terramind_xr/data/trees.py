"""DataTrees, as EOPF products come: which groups hold bands, and what stands in the way of one dataset."""

from __future__ import annotations

import math
import os

import numpy as np
import xarray as xr

from terramind_xr.data.check import Check
from terramind_xr.data.labels import band_of
from terramind_xr.facts import modalities
from terramind_xr.grid import Grid

_RADAR_DIMS = ("azimuth_time", "ground_range", "slant_range_time")


def scene_groups(tree: xr.DataTree) -> tuple[list[xr.Dataset], Check | None]:
    """Datasets of the bands of a tree, those of the finest pixels first; or what is wrong with it.

    A band in several groups is taken from the finest, and so is the scene classification (``scl``), for
    masks. Variables of 8 bits called after bands are masks and footprints.

    Examples
    --------
    >>> import numpy as np
    >>> tree = xr.DataTree.from_dict({"/r10m": xr.Dataset({"b02": (("y", "x"), np.zeros((4, 4)))})})
    >>> [list(ds) for ds in scene_groups(tree)[0]]
    [['b02']]
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for node in tree.subtree:
        for name, data in node.data_vars.items():
            grid = Grid.find(data) if _is_wanted(str(name), data) else None
            if grid is not None:
                found.setdefault(str(name), []).append((math.prod(grid.shape), node.path))
    chosen: dict[str, list[str]] = {}
    twice = None
    for name, places in sorted(found.items(), key=lambda item: -max(item[1])[0]):
        pixels, path = max(places, key=lambda place: place[0])
        rivals = [other for size, other in places if size == pixels]
        twice = twice or (_several(name, rivals) if len(rivals) > 1 else None)
        chosen.setdefault(path, []).append(name)
    if twice is not None or not chosen:
        return [], twice or _nothing(tree)
    return [tree[path].to_dataset()[names] for path, names in chosen.items()], None


def tree_fault(tree: xr.DataTree) -> Check:
    """Why a tree is no input of a model, and the line that makes it one, where there is one."""
    groups, fault = scene_groups(tree)
    if fault is not None:
        return fault
    listed = "one group" if len(groups) == 1 else f"bands in {len(groups)} groups"
    return Check(
        "DataTree", "grid.tree", "error", listed,
        "a Dataset or DataArray on one grid", "Bring its groups onto one: ds = tree.terramind.align()",
    )  # fmt: skip


def _is_wanted(name: str, data: xr.DataArray) -> bool:
    if name in modalities or name.lower() == "scl":
        return data.ndim > 1
    # "r" is a humidity as well: colours of one letter are none of a product.
    is_band = any(band_of(name, each) for each in modalities.values() if each.name != "RGB")
    stored = np.dtype(data.encoding.get("dtype", data.dtype))
    return is_band and data.ndim > 1 and stored.itemsize > 1


def _several(name: str, paths: list[str]) -> Check:
    """Two scenes in one tree: the groups below their common parent are the scenes."""
    parent = os.path.commonpath(paths)
    first = os.path.join(parent, os.path.relpath(paths[0], parent).split(os.sep)[0])
    return Check(
        name, "bands.twice", "error", f"groups with pixels of one size: {', '.join(paths)}", "one scene",
        f"Take one: ds = tree[{first!r}].terramind.align()",
    )  # fmt: skip


def _nothing(tree: xr.DataTree) -> Check:
    radar = [
        node.path
        for node in tree.subtree
        for data in node.data_vars.values()
        if len(set(_RADAR_DIMS) & set(data.dims)) == 2 and data.ndim == 2 and str(data.name) in ("grd", "slc")
    ]
    if radar:
        return Check(
            ", ".join(dict.fromkeys(radar)), "grid.radar", "error",
            "Sentinel-1 in radar geometry (azimuth time and range), which is no map",
            "backscatter on a map, in a CRS",
            "Take the terrain-corrected product of the same scene (S1RTC, for example Planetary Computer's "
            "sentinel-1-rtc), or correct this one with sarsen, pyroSAR or SNAP.",
        )  # fmt: skip
    paths = ", ".join(node.path for node in tree.subtree if node.data_vars) or "none with variables"
    return Check(
        "DataTree", "bands.none", "error", "no band of a known name in any group", "bands such as b02 or VV",
        f"Take the group that holds them, among {paths}: ds = tree[path].to_dataset()",
    )  # fmt: skip
