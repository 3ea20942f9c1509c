"""Fine-tuning with terratorch: data from xarray, backbones, and a short way for one scene."""

from terramind_xr.finetune.datamodule import XarrayDataModule

__all__ = ["XarrayDataModule"]
