"""`segment`: maps from a model that was fine-tuned with terratorch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from terramind_xr.api.mapping import mapped
from terramind_xr.api.options import check_batch_size, execution
from terramind_xr.data import Mask, Names, Offset
from terramind_xr.engine import Tiling
from terramind_xr.errors import InputError, OptionError, warn
from terramind_xr.kernels import SegmentKernel
from terramind_xr.kernels.segment import UNCERTAINTIES
from terramind_xr.label import provenance
from terramind_xr.model.finetuned import Finetuned, find_finetuned
from terramind_xr.model.sampling import Sampling
from terramind_xr.options import Precision, get_options
from terramind_xr.scene import Scene


def segment(
    obj: xr.Dataset | xr.DataArray,
    checkpoint: str | os.PathLike[str],
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    inputs: Names = None,
    probabilities: bool = False,
    uncertainty: str | Sequence[str] | None = None,
    offset: str | Offset = "auto",
    mask: Mask = None,
    seed: int = 0,
    temperature: float | None = None,
    overlap: int = 32,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision | None = None,
) -> xr.DataArray | xr.Dataset:
    """Map a scene with a model that was fine-tuned with terratorch: classes, or values of a regression.

    Lazy for lazy data: no pixel is read before the result is computed. The scene may be of any size; it is
    tiled by the size of the model's images, and tiles are blended, classes by their probabilities. Models of
    whole images, for the classification of scenes, tell one class or value of each tile. How the data is
    chunked does not change the result.

    Parameters
    ----------
    obj
        Holds the modalities that the model was trained on, with the bands that it reads, as for `generate`.
        Where the model was trained on several dates at once, each of them along ``time``; the result has
        none.
    checkpoint
        What ``terratorch fit`` wrote (``.ckpt``), or an exported state dict (``.pt``, ``.safetensors``).
        A file that holds more than weights and plain values is refused.
    config
        Configuration of the training, as a path or as what it holds: bands, means, names of classes; it is
        needed for a state dict. By default the ``config.yaml`` that Lightning wrote beside the checkpoint or
        one folder above. Without means in it, those of TerraMind's pre-training are taken, with a warning.
        A checkpoint that was trained on `terramind_xr.finetune.XarrayDataModule` needs none.
    inputs
        Where names of variables are ambiguous: ``{"S2L2A": {"B02": "my_variable", …}}``, as for `generate`.
    probabilities
        Class probabilities (``category``, y, x) instead of codes.
    uncertainty
        One or several of ``"entropy"``, ``"margin"`` and ``"least_confidence"``, from 0 (sure) to 1, as sits
        defines them.
    offset
        Radiometric offset within Sentinel-2 numbers, as for `generate`; the model gets numbers without it.
    mask
        True where pixels are not to be used, as for `generate`.
    seed
        Of what a model that thinks in modalities (``…_tim``) draws at a `temperature` above 0.
    temperature
        Of what such a model thinks, as for `generate`: None takes the likeliest tokens, as 0 does. Above 0
        they are drawn by seed and place; its training did so at ``tim_temps``, 1 by default.
    overlap
        Pixels that neighbouring tiles share: a multiple of 16 up to half a tile.
    batch_size
        Tiles to one run of the model.
    device
        torch device, e.g. ``"cuda"``; by default the option ``device``.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``; by default the option ``precision``.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        ``segmentation`` (time, …, y, x): codes, uint8, with 255 for no data, as the attribute
        ``terramind_nodata`` says; names of the classes are in ``flag_meanings``, and the codes of the labels
        in ``terramind_label_codes`` where the training knew them by others. With `probabilities`,
        (time, …, ``category``, y, x), float32 with NaN for no data. Of a regression, ``regression``
        (time, …, [``variable``,] y, x), float32 with NaN for no data. A model of whole images gives
        ``classification`` or ``regression`` alike, (time, …, tile_y, tile_x): y and x of the tiles' centres,
        and no data for tiles without a valid pixel. Where a tile may have several labels
        (``MultiLabelClassificationTask``), they are (time, …, ``category``, tile_y, tile_x), 1 where the
        probability of a class is above the attribute ``terramind_threshold``, else 0; probabilities do not
        sum to one. With `uncertainty` a Dataset, in which each measure is a
        variable beside it. Attributes say how it was made.

    Raises
    ------
    InputError
        With every fault of the data and its remedy.
    OptionError
        For options and configurations that cannot be used, or contradict the checkpoint.
    WeightsError
        If the checkpoint is missing, damaged, of another framework, or holds code.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(256)
    >>> try:
    ...     ds.terramind.segment("best.ckpt")
    ... except terramind_xr.WeightsError as error:
    ...     print(error)
    There is no checkpoint 'best.ckpt': expected the path of a file.
    """
    check_batch_size(batch_size)
    model = find_finetuned(checkpoint, config)
    wanted = _wanted(model, probabilities, uncertainty)
    sampling = _sampling(model, seed, temperature)
    bands = {each.name: each.band_names for each in model.inputs}
    given = Scene.of(obj, _inputs(model, inputs), bands=bands, offset=offset, mask=mask)
    scene = _over_dates(given, model)
    dates = None if scene.steps is None else scene.steps.size
    tiling = Tiling.of(scene.grid.shape, overlap=overlap, block=get_options().block, tile=model.tile)
    kernel = SegmentKernel(
        model, scene.kernel_inputs(), wanted, execution(device, precision), sampling, dates
    )
    drawn = sampling.told_tokens() if sampling else {}
    made = provenance(model, kernel.execution, tile=model.tile, **model.told(), **drawn)
    results = mapped(scene, kernel, tiling, batch_size=batch_size, made=made)
    if uncertainty is None:
        return results[0]
    return xr.Dataset({str(each.name): each for each in results})


def _wanted(
    model: Finetuned, probabilities: bool, uncertainty: str | Sequence[str] | None
) -> tuple[str, ...]:
    """What is made of the model's predictions."""
    measures = (uncertainty,) if isinstance(uncertainty, str) else tuple(uncertainty or ())
    unknown = [each for each in measures if each not in UNCERTAINTIES]
    if unknown or len(set(measures)) < len(measures) or (uncertainty is not None and not measures):
        raise OptionError(
            f"uncertainty={uncertainty!r} cannot be used: expected one or several of "
            f"{', '.join(UNCERTAINTIES)}."
        )
    if not model.has_classes:
        if probabilities or measures:
            option = "probabilities=True" if probabilities else f"uncertainty={uncertainty!r}"
            raise OptionError(
                f"{option} is for classes, and {model.backbone.filename} is a regression. Leave it out."
            )
        return ("values",)
    if model.has_several_labels:
        if measures:
            raise OptionError(
                f"uncertainty={uncertainty!r} is for classes that exclude each other, and those of "
                f"{model.backbone.filename} do not. Take probabilities=True, one for each class."
            )
        return ("probabilities" if probabilities else "labels",)
    return ("probabilities" if probabilities else "classes", *measures)


def _sampling(model: Finetuned, seed: int, temperature: float | None) -> Sampling | None:
    """How the model draws what it thinks in; None for a model that does not think."""
    asked = Sampling(seed, 0.0 if temperature is None else temperature)
    if model.thinking:
        return model.thinking.sampling(asked.seed, asked.temperature)
    if temperature is not None:
        raise OptionError(
            f"temperature={temperature!r} is for models that think in modalities (…_tim), and "
            f"{model.backbone.filename} is a {model.name}, which draws nothing. Leave it out."
        )
    return None


def _over_dates(scene: Scene, model: Finetuned) -> Scene:
    """The scene as the model reads it: all dates at once, where it was trained so."""
    if model.dates is None:
        return scene
    scene = scene.used_up("time")
    dates = scene.steps
    assert dates is not None, "just asked for"
    if model.dates.count not in (None, dates.size):
        raise InputError(
            f"time: found {dates.size} dates, expected {model.dates.count}, as {model.backbone.filename} was "
            f"trained ({model.dates.pooling} of {model.dates.count}). Choose them: "
            f"ds.isel(time=slice({model.dates.count}))."
        )
    if model.dates.in_order and not dates.to_index().is_monotonic_increasing:
        warn(
            f"The order of dates counts for {model.backbone.filename} ({model.dates.pooling}), and those of "
            "the scene do not rise. If the training had them in the order of time: ds.sortby('time')."
        )
    return scene


def _inputs(model: Finetuned, inputs: Names) -> Names:
    """The modalities of the model in its order, found as the user says."""
    names = [each.name for each in model.inputs]
    if inputs is None:
        return names
    said = [inputs] if isinstance(inputs, str) else list(inputs)
    if isinstance(inputs, Mapping):
        if set(said) <= set(names):
            found: dict[str, Any] = {name: inputs.get(name) for name in names}
            return found
    elif set(said) == set(names):
        return names
    raise OptionError(
        f"inputs={', '.join(map(str, said))} are not what {model.backbone.filename} was trained on: "
        f"{', '.join(names)}. Leave inputs out, or name these."
    )
