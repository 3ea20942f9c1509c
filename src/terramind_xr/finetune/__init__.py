"""Fine-tuning with terratorch: data from xarray, and a short way for one scene."""

from terramind_xr.finetune.datamodule import XarrayDataModule
from terramind_xr.finetune.polygons import rasterized
from terramind_xr.finetune.training import Fitted, fit

__all__ = ["Fitted", "XarrayDataModule", "fit", "rasterized"]
