"""Public functions of tokens: tokenize, detokenize, reconstruct."""

from __future__ import annotations

import os
from typing import Any, Literal

import dask
import xarray as xr

from terramind_xr.data import Mask, Offset, as_dataset, lookup
from terramind_xr.engine import Tiling, map_tiles
from terramind_xr.errors import InputError, OptionError
from terramind_xr.kernels import KernelInput
from terramind_xr.modalities import modalities
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import Recipe, codebook, find, writable
from terramind_xr.model.sampling import Sampling, is_whole
from terramind_xr.options import Precision, get_options
from terramind_xr.results import label, provenance
from terramind_xr.scene import Scene
from terramind_xr.token_kernels import DetokenizeKernel, TokenizeKernel
from terramind_xr.token_raster import TokenRaster

ModelName = str | os.PathLike[str] | None


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
    name = _with_tokenizer(modality)
    _check_batch_size(batch_size)
    options = get_options()
    execution = Execution(options.device if device is None else device)
    chosen = _model(model)
    scene = Scene.of(as_dataset(obj, name), [name], offset=offset, mask=mask)
    tiling = Tiling.of(scene.shape, overlap=overlap, block=options.block)
    (given,) = scene.kernel_inputs(check=options.check_values)
    kernel = TokenizeKernel(
        recipe=_recipe(chosen, name),
        given=given,
        codebook=codebook(chosen, name),
        execution=execution,
        shape=scene.shape,
    )
    (array,) = map_tiles(
        scene.sources(tiling), kernel, tiling, extra=scene.extra_shape, batch_size=batch_size
    )
    if not scene.is_lazy:
        (array,) = dask.compute(array, scheduler="threads")
    return label(
        kernel.outputs[0],
        scene.as_given(array),
        scene.given.data,
        spatial=scene.given.grid.dims,
        extra=scene.extra,
        attrs=_made(kernel.recipe, execution, tiling, batch_size, **scene.provenance(), **_unchecked(given)),
        grid=scene.given.grid.patches(),
    )


def detokenize(
    obj: xr.Dataset | xr.DataArray,
    modality: str | None = None,
    *,
    shape: tuple[int, int] | None = None,
    model: ModelName = None,
    seed: int = 0,
    diffusion_steps: int = 10,
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
        DDIM steps of a diffusion decoder (all but LULC).
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
    _check_batch_size(batch_size)
    if probabilities and raster.name != "LULC":
        raise OptionError(f"probabilities=True is for LULC; these are tokens of {raster.name}. Leave it out.")
    options = get_options()
    execution = Execution(options.device if device is None else device, precision or options.precision)
    chosen = _model(model)
    recipe = _recipe(chosen, raster.name)
    _check_tokenizer(raster, recipe)
    kernel = DetokenizeKernel(
        recipe=recipe,
        name=raster.name,
        codebook=codebook(chosen, raster.name),
        sampling=Sampling(seed=seed, diffusion_steps=diffusion_steps, clamp=clamp),
        execution=execution,
        probabilities=probabilities,
        offset=raster.offset,
    )
    tiling = Tiling.of(raster.shape, overlap=overlap, block=options.block)
    extra = tuple(index.size for index in raster.extra.values())
    (array,) = map_tiles([raster.source()], kernel, tiling, extra=extra, batch_size=batch_size)
    if not raster.is_lazy:
        (array,) = dask.compute(array, scheduler="threads")
    decoding = {"seed": int(seed), "diffusion_steps": diffusion_steps, "clamp": clamp or "none"}
    return label(
        kernel.outputs[0],
        raster.as_given(array),
        raster.given,
        spatial=raster.grid.dims,
        extra=raster.extra,
        attrs=_made(recipe, execution, tiling, batch_size, **decoding),
        grid=raster.grid,
    )


def reconstruct(
    obj: xr.Dataset | xr.DataArray,
    modality: str,
    *,
    model: ModelName = None,
    seed: int = 0,
    offset: str | Offset = "auto",
    mask: Mask = None,
    diffusion_steps: int = 10,
    overlap: int = 32,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision | None = None,
    probabilities: bool = False,
    clamp: Literal["upstream"] | None = "upstream",
) -> xr.DataArray:
    """Tokenize a modality and decode the tokens again: what the tokenizer keeps of it.

    The same as ``detokenize(tokenize(obj, modality))``, to the byte.

    Parameters
    ----------
    obj
        Holds the modality, as for `generate`.
    modality
        S2L2A, S1GRD, S1RTC, DEM, LULC or NDVI.
    model
        As for `tokenize`, and so are the others that it has.
    seed
        As for `detokenize`, and so are the others that it has.
    offset
        Radiometric offset within Sentinel-2 numbers.
    mask
        True where pixels are not to be used.
    diffusion_steps
        DDIM steps of a diffusion decoder.
    overlap
        Pixels that neighbouring tiles share.
    batch_size
        Tiles to one run of the model.
    device
        torch device.
    precision
        Of the decoder; tokens are made in fp32 always.
    probabilities
        LULC as class probabilities.
    clamp
        ``"upstream"`` or None.

    Returns
    -------
    xarray.DataArray
        As `detokenize` gives it, on the grid of the data.

    Raises
    ------
    InputError, OptionError, WeightsError
        As `tokenize` and `detokenize` do.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(250, modalities=("DEM",))
    >>> back = ds.terramind.reconstruct("DEM", model="demo", diffusion_steps=1)
    >>> back.dims == ds.DEM.dims, back.attrs["units"]
    (True, 'm')
    """
    tokens = tokenize(
        obj, modality, model=model, offset=offset, mask=mask, overlap=overlap, batch_size=batch_size,
        device=device,
    )  # fmt: skip
    return detokenize(
        tokens, model=model, seed=seed, diffusion_steps=diffusion_steps, overlap=overlap,
        batch_size=batch_size, device=device, precision=precision, probabilities=probabilities, clamp=clamp,
    )  # fmt: skip


def _with_tokenizer(modality: str) -> str:
    name = lookup(modality).name
    if not modalities[name].codebook:
        having = ", ".join(each for each, facts in modalities.items() if facts.codebook)
        raise OptionError(f"{name} has no tokenizer; modalities with one are {having}.")
    return name


def _check_batch_size(batch_size: int) -> None:
    if not is_whole(batch_size) or batch_size < 1:
        raise OptionError(f"batch_size={batch_size!r} cannot be used: expected a whole number of tiles >= 1.")


def _model(model: ModelName) -> str | os.PathLike[str]:
    chosen = model if model is not None else get_options().model
    if not isinstance(chosen, str | os.PathLike):
        raise OptionError(f"model={chosen!r} cannot be used: expected a name from models(), or a folder.")
    return chosen


def _recipe(model: str | os.PathLike[str], name: str) -> Recipe:
    """The tokenizer of a modality alone: no encoder and no decoder of the model is needed."""
    if name not in writable(model):
        raise OptionError(f"{model} has no tokenizer of {name}; it has {', '.join(sorted(writable(model)))}.")
    return find(model, {name}, backbone=False)


def _check_tokenizer(raster: TokenRaster, recipe: Recipe) -> None:
    """Raise InputError for tokens of another tokenizer: their numbers mean something else."""
    said, own = raster.given.attrs.get(f"terramind_{raster.name}_sha256"), recipe.digests[raster.name]
    if said is not None and said != own:
        by = raster.given.attrs.get("terramind_model", "another model")
        raise InputError(
            f"{raster.given.name}: found tokens made by {by} (tokenizer {str(said)[:12]}…), expected those "
            f"of {recipe.name} ({own[:12]}…). Decode them with the model that made them: model=…"
        )


def _made(
    recipe: Recipe, execution: Execution, tiling: Tiling, batch_size: int, **more: Any
) -> dict[str, Any]:
    """How an array was made, without what draws tokens."""
    attrs = provenance(
        recipe, Sampling(), execution, overlap=tiling.y.overlap, batch_size=batch_size, block=tiling.y.block
    )
    for key in ("seed", "temperature", "decoding", "diffusion_steps", "clamp"):
        attrs.pop(f"terramind_{key}")
    return attrs | {f"terramind_{key}": value for key, value in more.items()}


def _unchecked(given: KernelInput) -> dict[str, str]:
    return {} if given.check else {"check_values": "off"}
