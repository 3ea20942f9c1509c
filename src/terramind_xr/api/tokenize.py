"""`tokenize`: a modality as tokens."""

from __future__ import annotations

import xarray as xr

from terramind_xr.api.mapping import mapped
from terramind_xr.api.options import (
    ModelName,
    check_batch_size,
    chosen_model,
    execution,
    tokenizer_recipe,
    with_tokenizer,
)
from terramind_xr.data import Mask, Offset, as_dataset
from terramind_xr.engine import Tiling
from terramind_xr.kernels import TokenizeKernel
from terramind_xr.label import provenance
from terramind_xr.model.recipe import codebook
from terramind_xr.options import get_options
from terramind_xr.scene import Scene


def tokenize(
    obj: xr.Dataset | xr.DataArray,
    modality: str,
    *,
    model: ModelName = None,
    offset: str | Offset = "auto",
    mask: Mask = None,
    overlap: int = 32,
    batch_size: int = 8,
    device: str | None = None,
) -> xr.DataArray:
    """Turn a modality into tokens: one number for each patch of 16 × 16 pixels.

    Lazy for lazy data. Where tiles overlap, a patch has the token of the tile whose centre is nearest.

    Parameters
    ----------
    obj
        Holds the modality, as for `generate`.
    modality
        S2L2A, S1GRD, S1RTC, DEM, LULC or NDVI.
    model
        Name from `models`, or a folder with the tokenizer; by default the option ``model``.
    offset
        Radiometric offset within Sentinel-2 numbers, as for `generate`; tokens are without it.
    mask
        True where pixels are not to be used, as for `generate`.
    overlap
        Pixels that neighbouring tiles share: a multiple of 16 up to 112.
    batch_size
        Tiles to one run of the model.
    device
        torch device, e.g. ``"cuda"``; by default the option ``device``.

    Returns
    -------
    xarray.DataArray
        (time, …, y, x) on the patch grid of 160 m, uint16, called after the modality (``S2L2A_tokens``).
        Patches without a valid pixel hold 65535, as the attribute ``terramind_nodata`` says. Attributes
        hold the vocabulary, and the shape of the scene that `detokenize` needs.

    Raises
    ------
    InputError
        With every fault of the data and its remedy.
    OptionError
        For options that cannot be used, and modalities without a tokenizer.
    WeightsError
        If the tokenizer is missing.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(250)
    >>> tokens = ds.terramind.tokenize("S2L2A", model="demo")
    >>> tokens.shape, tokens.dtype, abs(tokens.rio.resolution()[0]), tokens.attrs["vocabulary_size"]
    ((16, 16), dtype('uint16'), 160.0, 3125)
    """
    name = with_tokenizer(modality)
    check_batch_size(batch_size)
    chosen = chosen_model(model)
    scene = Scene.of(as_dataset(obj, name), [name], offset=offset, mask=mask)
    tiling = Tiling.of(scene.grid.shape, overlap=overlap, block=get_options().block)
    (given,) = scene.kernel_inputs()
    kernel = TokenizeKernel(
        recipe=tokenizer_recipe(chosen, name),
        given=given,
        codebook=codebook(chosen, name),
        execution=execution(device),
        shape=scene.grid.shape,
    )
    made = provenance(kernel.recipe, kernel.execution)
    (tokens,) = mapped(scene, kernel, tiling, batch_size=batch_size, made=made)
    return tokens
