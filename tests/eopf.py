"""Real EOPF products in small: groups and attributes as they are, shapes shrunk, pixels made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import zarr

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "eopf"
NUMBERS = "biuf"
# A tile of 109.8 km becomes one of 1.2 km.
SHRUNK = {10980: 120, 5490: 60, 1830: 20}


def products(kind):
    """Metadata of the real products whose names hold a text."""
    return sorted(FOLDER.glob(f"*{kind}*.json"))


def write(path, store):
    """The product at `path` written to a folder, with the places of its north-west corner."""
    root = zarr.open_group(store, mode="w", zarr_format=2)
    _write(root, json.loads(path.read_text()), 10.0)
    zarr.consolidate_metadata(store, zarr_format=2)
    return store


def _write(group, node, step):
    group.attrs.update(node.get("attributes", {}))
    for name, member in node.get("members", {}).items():
        if "members" in member:
            size = int(name[1:-1]) if name in ("r10m", "r20m", "r60m") else step
            _write(group.create_group(name), member, float(size))
        elif np.dtype(member["dtype"]).kind in NUMBERS:
            shape = tuple(SHRUNK.get(size, min(size, 20)) for size in member["shape"])
            attrs = member.get("attributes", {})
            fill = member["fill_value"]
            array = group.create_array(
                name, shape=shape, dtype=member["dtype"],
                fill_value=np.nan if fill == "NaN" else fill, attributes=attrs,
            )  # fmt: skip
            array[...] = _values(name, shape, member["dtype"], step)


def _values(name, shape, dtype, step):
    if name in ("x", "y") and len(shape) == 1:
        corner, sign = (699960, 1) if name == "x" else (4700040, -1)
        return (corner + sign * step * (np.arange(shape[0]) + 0.5)).astype(dtype)
    if len(shape) == 2 and shape[0] == shape[1] and shape[0] in SHRUNK.values():
        rows = np.arange(shape[0])[:, None] * step + 0 * np.arange(shape[1])
        values = (1200 + rows if np.dtype(dtype).itemsize > 1 else rows // 300).astype(dtype)
        values[: int(60 // step) or 1, : int(60 // step) or 1] = 0  # no data in the corner
        return values
    return np.zeros(shape, dtype)
