"""TerraMind, the any-to-any generative model for Earth observation, on xarray and dask.

>>> import terramind_xr
>>> scene = terramind_xr.synthetic.scene(300)
>>> lulc = scene.terramind.generate("LULC", model="demo")
"""

import importlib as _importlib
from importlib.metadata import version as _version
from typing import Any as _Any

from terramind_xr import accessor as accessor
from terramind_xr.api.align import align
from terramind_xr.api.detokenize import detokenize
from terramind_xr.api.embed import embed
from terramind_xr.api.export import export
from terramind_xr.api.generate import generate
from terramind_xr.api.plan import plan
from terramind_xr.api.reconstruct import reconstruct
from terramind_xr.api.segment import segment
from terramind_xr.api.to_zarr import to_zarr
from terramind_xr.api.tokenize import tokenize
from terramind_xr.api.validate import validate
from terramind_xr.data import Check, Report, with_stac
from terramind_xr.errors import (
    DeviceMemoryError,
    InputError,
    OptionError,
    TerramindError,
    TerramindWarning,
    WeightsError,
)
from terramind_xr.evaluation import evaluate
from terramind_xr.facts import lulc_classes, modalities
from terramind_xr.io import open_rasters
from terramind_xr.model.recipe import models
from terramind_xr.options import set_options
from terramind_xr.plans import Plan
from terramind_xr.plotting import plot
from terramind_xr.raster import to_raster
from terramind_xr.seams import Seams, seam_index
from terramind_xr.stac import stac_item

__version__ = _version("terramind_xr")

__all__ = [
    "Check",
    "DeviceMemoryError",
    "InputError",
    "OptionError",
    "Plan",
    "Report",
    "Seams",
    "TerramindError",
    "TerramindWarning",
    "WeightsError",
    "__version__",
    "align",
    "detokenize",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "generate",
    "lulc_classes",
    "modalities",
    "models",
    "open_rasters",
    "plan",
    "plot",
    "preload",
    "reconstruct",
    "seam_index",
    "segment",
    "set_options",
    "stac_item",
    "synthetic",
    "to_raster",
    "to_zarr",
    "tokenize",
    "validate",
    "with_stac",
]


def __getattr__(name: str) -> _Any:
    """Import what is asked for seldom and slow to import: `finetune` needs torch, `preload` distributed."""
    if name in ("finetune", "synthetic"):
        return _importlib.import_module(f"terramind_xr.{name}")
    if name == "preload":
        return _importlib.import_module("terramind_xr.cluster").preload
    raise AttributeError(f"module 'terramind_xr' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names only: the modules inside the package are not for tab completion."""
    return __all__
