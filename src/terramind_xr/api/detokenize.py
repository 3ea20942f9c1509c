"""`detokenize`: tokens as pixels."""

from __future__ import annotations

from typing import Literal

import xarray as xr

from terramind_xr.api.mapping import mapped
from terramind_xr.api.options import (
    ModelName,
    check_batch_size,
    check_probabilities,
    chosen_model,
    execution,
    tokenizer_recipe,
)
from terramind_xr.engine import Tiling
from terramind_xr.kernels import DetokenizeKernel
from terramind_xr.label import provenance
from terramind_xr.model.recipe import codebook
from terramind_xr.model.sampling import Sampling, Solver
from terramind_xr.options import Precision, get_options
from terramind_xr.token_raster import TokenRaster


def detokenize(
    obj: xr.Dataset | xr.DataArray,
    modality: str | None = None,
    *,
    shape: tuple[int, int] | None = None,
    model: ModelName = None,
    seed: int = 0,
    diffusion_steps: int = 10,
    solver: Solver = "ddim",
    overlap: int = 32,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision | None = None,
    probabilities: bool = False,
    clamp: Literal["upstream"] | None = "upstream",
) -> xr.DataArray:
    """Turn tokens back into pixels.

    Lazy for lazy tokens. Tokens alone are enough, also those read from a file that `tokenize` made.

    Parameters
    ----------
    obj
        Tokens as `tokenize` gives them, or a dataset with one such variable.
    modality
        Whose tokens they are, where their attributes do not say it.
    shape
        Rows and columns of the scene in pixels, where the attributes do not say them. A crop of the
        tokens gives whole patches.
    model
        Name from `models`, or a folder with the tokenizer; by default the option ``model``.
    seed
        Of the noise that a diffusion decoder starts from; it belongs to places of the scene.
    diffusion_steps
        Steps of a diffusion decoder (all but LULC).
    solver
        How these steps go, as for `generate`: ``"ddim"``, ``"dpm++"`` or ``"unipc"``.
    overlap
        Pixels that neighbouring tiles share: a multiple of 16 up to 112.
    batch_size
        Tiles to one run of the model.
    device
        torch device, e.g. ``"cuda"``; by default the option ``device``.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``; by default the option ``precision``.
    probabilities
        LULC as class probabilities (``lulc_class``, y, x) instead of codes.
    clamp
        ``"upstream"`` keeps diffusion outputs within one standard deviation of the mean, as terratorch
        does; None does not.

    Returns
    -------
    xarray.DataArray
        (time, …, [band,] y, x) on the grid of 10 m, as `generate` gives the modality. Patches without
        data come back as no data. Sentinel-2 numbers carry the offset that they were tokenized from.

    Raises
    ------
    InputError
        What is given are no tokens of this model, or they do not say what they are.
    OptionError
        For options that cannot be used.
    WeightsError
        If the tokenizer is missing.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(250, modalities=("LULC",))
    >>> tokens = ds.terramind.tokenize("LULC", model="demo")
    >>> back = tokens.terramind.detokenize(model="demo")
    >>> back.shape, float((back == ds.LULC).mean()) > 0.8
    ((250, 250), True)
    """
    raster = TokenRaster.of(obj, modality, shape)
    check_batch_size(batch_size)
    check_probabilities(probabilities, (raster.name,))
    chosen = chosen_model(model)
    kernel = DetokenizeKernel(
        recipe=tokenizer_recipe(chosen, raster.name),
        name=raster.name,
        codebook=codebook(chosen, raster.name),
        sampling=Sampling(seed=seed, diffusion_steps=diffusion_steps, solver=solver, clamp=clamp),
        execution=execution(device, precision),
        probabilities=probabilities,
        offset=raster.offset,
    )
    raster.check_tokenizer(kernel.recipe)
    tiling = Tiling.of(raster.grid.shape, overlap=overlap, block=get_options().block)
    decoding = {key: kernel.sampling.told()[key] for key in ("seed", "diffusion_steps", "solver", "clamp")}
    made = provenance(kernel.recipe, kernel.execution, **decoding)
    (pixels,) = mapped(raster, kernel, tiling, batch_size=batch_size, made=made)
    return pixels
