"""DataTrees, as EOPF products come: which groups hold bands, and how to make one dataset of them."""

from __future__ import annotations

import math

import xarray as xr

from terramind_xr.data.labels import band_of
from terramind_xr.facts import modalities
from terramind_xr.grid import Grid


def band_groups(tree: xr.DataTree) -> dict[str, list[str]]:
    """Variables that can be bands, by the path of their group; groups of finer pixels come first.

    Of groups that hold the same bands again (EOPF's quicklooks), the first one is kept.
    """
    found: dict[str, tuple[int, list[str]]] = {}
    for node in tree.subtree:
        names = [
            str(name)
            for name, data in node.data_vars.items()
            if Grid.find(data) is not None and any(band_of(str(name), each) for each in modalities.values())
        ]
        if names:
            pixels = math.prod(node[names[0]].shape[-2:])
            found[node.path] = pixels, names
    finest_first = sorted(found, key=lambda path: -found[path][0])
    kept: dict[str, list[str]] = {}
    for path in finest_first:
        new = [name for name in found[path][1] if not any(name in names for names in kept.values())]
        if new:
            kept[path] = new
    return kept


def recipe(tree: xr.DataTree) -> str:
    """Lines that make one dataset of a tree, on the grid of its finest group.

    Examples
    --------
    >>> import numpy as np
    >>> tree = xr.DataTree.from_dict({"/r10m": xr.Dataset({"b02": (("y", "x"), np.zeros((4, 4)))})})
    >>> print(recipe(tree))
    ds = tree["/r10m"].to_dataset()[["b02"]]
    """
    groups = band_groups(tree)
    if not groups:
        paths = ", ".join(node.path for node in tree.subtree if node.data_vars) or "none with variables"
        return f"ds = tree[path].to_dataset()  # path of the group that holds the bands, among {paths}"
    (first, names), *others = groups.items()
    lines = [f"ds = tree[{first!r}].to_dataset()[{names}]".replace("'", '"')]
    for path, names in others:
        group = f"tree[{path!r}].to_dataset()[{names}]".replace("'", '"')
        nearest = 'method="nearest", kwargs={"fill_value": "extrapolate"}'
        lines.append(f"ds = ds.merge({group}.interp_like(ds, {nearest}))")
    return "\n".join(lines)
