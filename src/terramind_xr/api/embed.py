"""`embed`: features of the encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import xarray as xr

from terramind_xr.api.mapping import mapped
from terramind_xr.api.options import ModelName, check_batch_size, check_readable, chosen_model, execution
from terramind_xr.conventions import embedding_attributes
from terramind_xr.data import Mask, Names, Offset
from terramind_xr.engine import Tiling
from terramind_xr.errors import OptionError
from terramind_xr.facts import modalities
from terramind_xr.kernels import EmbedKernel
from terramind_xr.kernels.embed import POOLS, Dtype, Pool
from terramind_xr.label import provenance
from terramind_xr.model.features import MERGES, Merge, embedding_scale, encoder_size
from terramind_xr.model.recipe import describe, find
from terramind_xr.model.sampling import is_whole
from terramind_xr.options import Precision, get_options
from terramind_xr.scene import Scene


def embed(
    obj: xr.Dataset | xr.DataArray,
    *,
    inputs: Names = None,
    layers: int | Sequence[int] = -1,
    merge: Merge = "mean",
    pool: Pool = None,
    model: ModelName = None,
    offset: str | Offset = "auto",
    mask: Mask = None,
    dtype: Dtype = "float32",
    scale: float | None = None,
    overlap: int = 32,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision | None = None,
) -> xr.DataArray | xr.Dataset:
    """Turn each patch of 16 × 16 pixels into features of the encoder, or each tile of 224 × 224 pixels.

    Lazy for lazy data. Features of a tile are those of terratorch's backbone; where tiles overlap, they are
    blended, unless each tile gets a vector of its own.

    Parameters
    ----------
    obj
        Holds the input modalities on one grid of 10 m, as for `generate`.
    inputs
        Modalities to use; by default every pixel modality in the object. LULC and NDVI only when named.
    layers
        Blocks of the encoder: 0 is the first one and -1 the last one, whose features are normalised. Several
        give a dimension ``layer``.
    merge
        How the features of several modalities become one: ``"mean"``, ``"max"``, or ``"concat"`` along the
        features. None gives a dimension ``modality``, and ``"dict"`` a variable for each modality.
    pool
        None for a vector of each patch, ``"mean"`` or ``"max"`` for one of each tile: over its patches that
        hold a valid pixel.
    model
        Name from `models`, or a folder with the files; by default the option ``model``.
    offset
        Radiometric offset within Sentinel-2 numbers, as for `generate`.
    mask
        True where pixels are not to be used, as for `generate`. The encoder sees the band's mean there.
    dtype
        ``"float32"``, ``"float16"``, or ``"int8"``: codes from -127 to 127, and -128 for no data.
    scale
        What an int8 code is multiplied by; by default the constant of the demo's layers (of several layers
        the largest one). For other models, ``benchmarks/embedding_scale.py`` measures it.
    overlap
        Pixels that neighbouring tiles share: a multiple of 16 up to 112.
    batch_size
        Tiles to one run of the model.
    device
        torch device, e.g. ``"cuda"``; by default the option ``device``.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``; by default the option ``precision``.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        (time, …, [layer, modality,] feature, y, x) on the patch grid of 160 m, called ``embedding``, without
        unit. Patches without a valid pixel are NaN. Codes hold the CF attributes ``scale_factor`` and
        ``_FillValue``, so that files give back floats with NaN: `xarray.decode_cf` does it in memory.
        With `pool` (time, …, [layer, modality,] feature, tile_y, tile_x): y and x of the tiles' centres,
        and NaN for tiles without a valid pixel.
        ``merge="dict"`` gives a Dataset with a variable for each modality (``S2L2A_embedding``).

    Raises
    ------
    InputError
        With every fault of the data and its remedy.
    OptionError
        For options that cannot be used, and features that float16 cannot hold.
    WeightsError
        If weights are missing.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(250)
    >>> embedding = ds.terramind.embed(model="demo")
    >>> embedding.dims, embedding.shape, abs(embedding.rio.resolution()[0])
    (('feature', 'y', 'x'), (128, 16, 16), 160.0)
    >>> by_tile = ds.terramind.embed(model="demo", pool="mean")
    >>> by_tile.dims, by_tile.shape
    (('feature', 'tile_y', 'tile_x'), (128, 2, 2))
    """
    check_batch_size(batch_size)
    for option, value, known in (("merge", merge, MERGES), ("pool", pool, POOLS)):
        if value not in known:
            raise OptionError(f"{option}={value!r} is unknown: use {', '.join(map(repr, known))}.")
    chosen = chosen_model(model)
    name = describe(chosen).name
    width, depth = encoder_size(name)
    numbers = _layers(layers, name, depth)
    scaled = _scale(scale, dtype, name, numbers)
    scene = Scene.of(obj, inputs, offset=offset, mask=mask)
    check_readable(chosen, list(scene.inputs))
    tiling = Tiling.of(scene.grid.shape, overlap=overlap, block=get_options().block)
    kernel = EmbedKernel(
        # Layers are asked for one by one: they run as they were before an export.
        recipe=replace(
            find(chosen, {each for each in scene.inputs if modalities[each].raw_key is None}), transformer=()
        ),
        inputs=scene.kernel_inputs(),
        layers=numbers,
        stacked=not is_whole(layers),
        merge=merge,
        width=width,
        execution=execution(device, precision),
        shape=scene.grid.shape,
        pool=pool,
        dtype=dtype,
        scale=scaled,
    )
    told = {"inputs": " ".join(kernel.names), "layers": " ".join(map(str, numbers)), "merge": str(merge)}
    made = provenance(kernel.recipe, kernel.execution, pool=pool, **told)
    results = mapped(scene, kernel, tiling, batch_size=batch_size, made=made)
    for result in results:
        result.attrs.update(embedding_attributes(result, kernel.recipe.name, kernel.names))
    return xr.Dataset({str(each.name): each for each in results}) if merge == "dict" else results[0]


def _layers(layers: int | Sequence[int], name: str, depth: int) -> tuple[int, ...]:
    """Numbers of the blocks, counted from the first one, each once."""
    given: tuple[Any, ...] = tuple(layers) if isinstance(layers, Sequence) else (layers,)
    if not given or not all(is_whole(each) and -depth <= each < depth for each in given):
        raise OptionError(
            f"layers={layers!r} cannot be used: {name} has {depth} layers. Give a number from {-depth} to "
            f"{depth - 1}, or several in a list."
        )
    found = tuple(int(each) % depth for each in given)
    if len(set(found)) < len(found):
        raise OptionError(f"layers={layers!r} names a layer twice; name each once.")
    return found


def _scale(scale: float | None, dtype: str, name: str, layers: tuple[int, ...]) -> float:
    """What a code is multiplied by; 1 for floats."""
    if dtype not in get_args(Dtype):
        raise OptionError(f"dtype={dtype!r} is unknown: use {', '.join(map(repr, get_args(Dtype)))}.")
    if dtype != "int8":
        if scale is not None:
            raise OptionError(f"scale={scale!r} is for dtype='int8', found dtype={dtype!r}. Leave it out.")
        return 1.0
    if scale is None:
        known = embedding_scale(name, layers)
        if known is None:
            raise OptionError(
                f"dtype='int8' needs a scale, and none is known for {name}. Measure it by "
                f"benchmarks/embedding_scale.py --model {name} --layers {' '.join(map(str, layers))}, "
                "and give what it prints: scale=…"
            )
        return known
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not is_number or not math.isfinite(scale) or scale <= 0:
        raise OptionError(f"scale={scale!r} cannot be used: expected a positive number.")
    return float(scale)
