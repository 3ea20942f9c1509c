"""What a block does to its data: raw values to standardised tiles, and predictions to maps.

Kernels join the contract with the data (units, offsets, nodata) to `model`, one for each verb. They are
frozen values that hold no weights, so that dask can name, pickle and compare tasks by them.
"""

from terramind_xr.kernels.embed import EmbedKernel
from terramind_xr.kernels.generate import GenerateKernel
from terramind_xr.kernels.reading import KernelInput, TokenInput
from terramind_xr.kernels.tokens import DetokenizeKernel, TokenizeKernel

__all__ = [
    "DetokenizeKernel",
    "EmbedKernel",
    "GenerateKernel",
    "KernelInput",
    "TokenInput",
    "TokenizeKernel",
]
