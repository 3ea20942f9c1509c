"""Datasets as libraries gave them, as JSON: every dim, coordinate, attribute and encoding."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import xarray as xr

FOLDER = Path(__file__).parent / "data" / "sources"
KEPT = ("grid_mapping", "_FillValue", "scale_factor", "add_offset", "units", "dtype", "rasterio_dtype")


def load(name: str) -> xr.Dataset | xr.DataArray:
    """What a library gave."""
    told = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    variables = {key: _variable(each) for key, each in told["variables"].items()}
    ds = xr.Dataset(variables, attrs=_plain(told["attrs"])).set_coords(told["coords"])
    for key, each in told["variables"].items():
        ds[key].encoding = _plain(each["encoding"])
    if "array" not in told:
        return ds
    data = ds["array"].rename(told["array"])
    data.encoding = _plain(told["variables"]["array"]["encoding"])
    return data


def dump(obj: xr.Dataset | xr.DataArray, name: str, by: str) -> None:
    """Keep what a library gave; `by` says which one, or what its structure was read from."""
    told: dict = {"by": by}
    if isinstance(obj, xr.DataArray):
        told["array"] = obj.name
        obj = obj.to_dataset(name="array")
    told["coords"] = [str(key) for key in obj.coords]
    told["attrs"] = _told(obj.attrs)
    variables = {
        str(key): {
            "dims": each.dims,
            "attrs": _told(each.attrs),
            "encoding": _told({key: each.encoding[key] for key in KEPT if key in each.encoding}),
            **_packed(each.values),
        }
        for key, each in obj.variables.items()
    }
    lines = [f"{json.dumps(key)}: {json.dumps(each, ensure_ascii=False)}" for key, each in variables.items()]
    head = json.dumps(told, ensure_ascii=False).removesuffix("}")
    text = f'{head},\n"variables": {{\n' + ",\n".join(lines) + "\n}}\n"
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def _variable(told: dict) -> tuple:
    shape = tuple(told["shape"])
    if "zlib" in told:
        values = np.frombuffer(zlib.decompress(base64.b64decode(told["zlib"])), told["dtype"]).reshape(shape)
    else:
        values = np.empty(shape, object)
        values.ravel()[:] = _plain(told["values"])
        values = values if told["dtype"] == "object" else values.astype(told["dtype"])
    return tuple(told["dims"]), values.copy(), _plain(told["attrs"])


def _packed(values: np.ndarray) -> dict:
    if values.dtype.kind in "biufMm":
        text = base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode()
        return {"shape": values.shape, "dtype": values.dtype.str, "zlib": text}
    dtype = "object" if values.dtype.kind == "O" else "str"
    return {"shape": values.shape, "dtype": dtype, "values": _told(values.ravel().tolist())}


def _told(value):
    """As JSON has it; numpy scalars and affine transforms by their names."""
    if isinstance(value, dict):
        return {str(key): _told(each) for key, each in value.items()}
    if type(value).__name__ == "Affine":
        return {"Affine": list(value)[:6]}
    if isinstance(value, np.dtype | type):
        return np.dtype(value).str
    if isinstance(value, np.generic):
        return {"numpy": value.dtype.str, "value": value.item()}
    if isinstance(value, np.ndarray):
        return {"numpy": value.dtype.str, "value": value.tolist()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_told(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _plain(value):
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"Affine"}:
        from rasterio import Affine

        return Affine(*value["Affine"])
    if value.keys() == {"numpy", "value"}:
        found = np.array(value["value"], value["numpy"])
        return found if found.ndim else found[()]
    return {key: _plain(each) for key, each in value.items()}
