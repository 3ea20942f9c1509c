"""The ``.terramind`` accessor: the public functions, re-attached."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import xarray as xr

from terramind_xr import plotting, raster, seams
from terramind_xr.api.align import align
from terramind_xr.api.detokenize import detokenize
from terramind_xr.api.embed import embed
from terramind_xr.api.generate import generate
from terramind_xr.api.plan import plan
from terramind_xr.api.reconstruct import reconstruct
from terramind_xr.api.segment import segment
from terramind_xr.api.to_zarr import to_zarr
from terramind_xr.api.tokenize import tokenize
from terramind_xr.api.validate import validate
from terramind_xr.data import with_stac
from terramind_xr.evaluation import evaluate


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Free function as a method: the object of the accessor is its first argument."""

    @functools.wraps(function)
    def method(self: TerramindAccessor, *args: Any, **kwargs: Any) -> Any:
        return function(self._obj, *args, **kwargs)

    signature = inspect.signature(function)
    _first, *rest = signature.parameters.values()
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *rest]
    )
    return method


@xr.register_datatree_accessor("terramind")  # type: ignore[no-untyped-call]
@xr.register_dataset_accessor("terramind")  # type: ignore[no-untyped-call]
@xr.register_dataarray_accessor("terramind")  # type: ignore[no-untyped-call]
class TerramindAccessor:
    """TerraMind on a Dataset or DataArray; every method is a function of the package.

    A DataTree has `align` and `validate`; other methods raise an error with the line that makes it a dataset.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(300)
    >>> ds.terramind.validate("S2L2A").ok
    True
    """

    def __init__(self, obj: xr.Dataset | xr.DataArray | xr.DataTree) -> None:
        self._obj = obj

    def __dir__(self) -> list[str]:
        """Public names only, for tab completion."""
        return [name for name in super().__dir__() if not name.startswith("_")]

    align = _method(align)
    validate = _method(validate)
    with_stac = _method(with_stac)
    generate = _method(generate)
    tokenize = _method(tokenize)
    detokenize = _method(detokenize)
    reconstruct = _method(reconstruct)
    embed = _method(embed)
    segment = _method(segment)
    plan = _method(plan)
    evaluate = _method(evaluate)
    to_zarr = _method(to_zarr)
    to_raster = _method(raster.to_raster)
    plot = _method(plotting.plot)
    seam_index = _method(seams.seam_index)
