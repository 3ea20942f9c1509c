"""`export`: a model whose networks are converted once, for faster work on processors."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.api.generate import Call
from terramind_xr.api.options import ModelName, chosen_model, execution, with_tokenizer
from terramind_xr.engine import Source
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import PATCH, TILE
from terramind_xr.model import conversion
from terramind_xr.model.batch import Batch
from terramind_xr.model.compiled import import_openvino
from terramind_xr.model.exported import BACKBONE, EXPORT_PRECISIONS, HALVES, ExportPrecision, Manifest
from terramind_xr.model.features import encoder_size
from terramind_xr.model.files import in_folder
from terramind_xr.model.recipe import Recipe, backbone_filename, find, tokenizer_filename, writable
from terramind_xr.model.sampling import Sampling

_TILES, _DIFFUSION_TILES = 16, 4
"""Tiles that are calibrated on; those of a diffusion decoder in each of its ten steps."""
_SYNTHETIC = 1120, 77
"""Side and seed of the world that is calibrated on by default."""

Tokens = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Tokens (tile, row, column), and first row and column of each tile: (tile, 2)."""


def export(
    model: ModelName,
    outputs: str | Sequence[str],
    path: str | os.PathLike[str],
    *,
    precision: ExportPrecision = "int8",
    backbone: bool = False,
    calibration: xr.Dataset | xr.DataArray | None = None,
) -> Path:
    """Convert the decoders of a model once, for faster work on processors, and write a folder.

    The folder is a model: ``model=path`` takes it in every verb, without a network, wherever it is visible.
    It holds the weights of the backbone and of the tokenizers as they are, what was converted, and a manifest
    with digests, versions and calibration. Tokens are those of the source model, unless its backbone is
    converted as well; pixels differ a little. The extra ``terramind_xr[openvino]`` must be installed, also
    where the folder computes.

    Parameters
    ----------
    model
        Name from `models`, or a folder with the files; None takes the option ``model``.
    outputs
        One modality or several: those whose decoders are converted, and whose tokenizers the folder holds.
    path
        Folder to write; it must not exist.
    precision
        ``"int8"`` quantises products by scales that are found once; ``"bf16"`` is for processors that have it
        (others compute in float32); ``"fp32"`` changes the library only.
    backbone
        Whether the transformer that writes tokens is converted, too: it is faster then, and gives other
        tokens now and then, or often, as ``benchmarks/precision.py`` tells for a model and a scene. `embed`
        runs it as it was.
    calibration
        Scene on which the scales of int8 are found, of at least 224 pixels a side: what `generate` makes the
        outputs from. Up to 16 of its tiles (4 with diffusion) are used, of the first
        date. By default a fixed scene of
        `synthetic.scene`.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    OptionError
        For options that are impossible, or if the extra is not installed.
    InputError
        If the calibration scene cannot be used.
    WeightsError
        If weights are missing.

    Examples
    --------
    >>> import terramind_xr
    >>> scene = terramind_xr.synthetic.scene(448)
    >>> folder = terramind_xr.export("demo", "LULC", "demo-int8")  # doctest: +SKIP
    >>> lulc = scene.terramind.generate("LULC", model=folder)  # doctest: +SKIP
    """
    model = chosen_model(model)
    names = _outputs(model, outputs)
    target = _target(path, precision, backbone, calibration)
    import_openvino(*(("nncf",) if precision == "int8" else ()))
    recipe = find(model, names)
    if recipe.decoders:
        raise OptionError(f"model={str(model)!r} is an export already. Give the model that it was made of.")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Whoever looks finds the whole folder, or none.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
        made = Path(beside) / "model"
        made.mkdir()
        told: dict[str, Any] = {}
        samples: dict[str, list[conversion.Sample]] = {half: [] for half in HALVES}
        for name in names:
            batches = _batches(model, name, calibration) if precision == "int8" else []
            tokens = _tokens(recipe, name, batches) if batches else None
            _write_decoder(recipe, name, tokens, made)
            if tokens:
                digest = hashlib.sha256(tokens[0].tobytes()).hexdigest()
                told[name] = {"tiles": len(batches), "tokens_sha256": digest}
            if backbone:
                for half, more in conversion.transformer_inputs(recipe, name, batches).items():
                    samples[half] += more
        if backbone:
            _write_transformer(recipe, samples, made)
        _copy_weights(recipe, made)
        size, seed = _SYNTHETIC
        data = f"synthetic.scene({size}, seed={seed})" if calibration is None else "given"
        Manifest(
            model=recipe.name,
            revision=recipe.backbone.revision,
            precision=precision,
            decoders=names,
            backbone=backbone,
            files={each.name: in_folder(each.name, made).digest for each in sorted(made.iterdir())},
            versions=_versions("nncf" if precision == "int8" else "openvino"),
            calibration={"data": data, **told} if told else {},
        ).write(made)
        made.rename(target)
    return target


def _outputs(model: str | os.PathLike[str], outputs: str | Sequence[str]) -> tuple[str, ...]:
    """Names of the outputs in order, each one that the model decodes to pixels."""
    if not isinstance(outputs, str | Sequence) or not outputs:
        raise OptionError(f"outputs={outputs!r} cannot be used: expected a modality, or several in a list.")
    asked = [outputs] if isinstance(outputs, str) else outputs
    names = tuple(dict.fromkeys(map(with_tokenizer, asked)))
    writes = writable(model)
    unwritten = [name for name in names if name not in writes]
    if unwritten:
        listed = ", ".join(sorted(writes))
        raise OptionError(f"{', '.join(unwritten)} cannot be generated by {model}; its outputs are {listed}.")
    return names


def _target(path: str | os.PathLike[str], precision: str, backbone: object, calibration: Any) -> Path:
    """Folder to write; OptionError for options that cannot be used."""
    if precision not in EXPORT_PRECISIONS:
        listed = ", ".join(EXPORT_PRECISIONS)
        raise OptionError(f"precision={precision!r} cannot be used: expected one of {listed}.")
    if calibration is not None and precision != "int8":
        raise OptionError(f"calibration is for precision='int8', not {precision!r}. Leave it out.")
    if not isinstance(backbone, bool):
        raise OptionError(f"backbone={backbone!r} cannot be used: it is True or False.")
    target = Path(path).expanduser().absolute()
    if target.exists():
        raise OptionError(f"path={str(path)!r} exists already. Give another one, or remove it first.")
    return target


def _batches(
    model: str | os.PathLike[str], name: str, calibration: xr.Dataset | xr.DataArray | None
) -> list[Batch]:
    """Some tiles of a scene to generate an output from, each in a batch of its own."""
    if calibration is None:
        size, seed = _SYNTHETIC
        source = "S1GRD" if name == "S2L2A" else "S2L2A"
        from terramind_xr.synthetic import scene  # many modules, for this alone

        calibration = scene(size, seed, modalities=(source,))[[source]]
    call = Call.of(
        calibration, name, inputs=None, model=model, offset="auto", mask=None, probabilities=False,
        sampling=Sampling(), execution=execution("cpu"), overlap=0, shifts=1, batch_size=1,
    )  # fmt: skip
    return _some_tiles(call, _TILES if name == "LULC" else _DIFFUSION_TILES)


def _tokens(recipe: Recipe, name: str, batches: Sequence[Batch]) -> Tokens:
    """Tokens of an output as the model generates them."""
    found = [conversion.likeliest_tokens(recipe, name, batch) for batch in batches]
    return np.concatenate(found), np.concatenate([batch.places for batch in batches])


def _some_tiles(call: Call, number: int) -> list[Batch]:
    """Up to a number of tiles with data, spread over the scene, each in a batch of its own."""
    height, width = call.scene.grid.shape
    if min(height, width) < TILE:
        raise InputError(
            f"calibration: found {height} × {width} pixels, expected at least {TILE} × {TILE}, a tile of the "
            "model. Give a larger scene."
        )
    # The last tile of an axis may reach beyond the scene, which is not padded here.
    rows, columns = (
        dict.fromkeys(min(start, (axis.size - TILE) // PATCH * PATCH) for start in axis.starts)
        for axis in (call.tiling.y, call.tiling.x)
    )
    starts = [(y, x) for y in rows for x in columns]
    sources, found = call.scene.sources(call.tiling), []
    for index in np.random.default_rng(0).permutation(len(starts)):
        batch = _batch(call, sources, *starts[index])
        if all(mask.any() for mask in batch.visible.values()):
            found.append(batch)
        if len(found) == number:
            break
    if not found:
        raise InputError("calibration: no tile holds a valid pixel in every input. Give another scene.")
    return found


def _batch(call: Call, sources: Sequence[Source], y: int, x: int) -> Batch:
    """What the model reads of one tile, of the first date."""
    windows = [
        source.array[
            (
                *(0 for _ in source.axes),
                slice(None),
                slice(y // source.cell, (y + TILE) // source.cell),
                slice(x // source.cell, (x + TILE) // source.cell),
            )
        ]
        for source in sources
    ]
    layers = call.kernel.load(list(dask.compute(*windows, scheduler="synchronous")))
    values, valid = [each.whole()[None] for each in layers], [each.valid[None] for each in layers]
    return call.kernel.batch(values, valid, np.array([[y, x]], np.int64))


def _write_decoder(recipe: Recipe, name: str, tokens: Tokens | None, folder: Path) -> None:
    """Convert the decoder of one modality; it is quantised where there are tokens to calibrate on."""
    side = TILE // PATCH
    example = np.zeros((1, side, side), np.int64), np.zeros((1, 2), np.int64)
    samples = conversion.decoder_inputs(recipe, name, *(tokens or example), steps=10 if tokens else 1)
    converted = conversion.convert(recipe, name, samples[0])
    if tokens:
        converted = conversion.quantized(converted, samples, diffusion=name != "LULC")
    conversion.save(converted, f"decoder_{name}", folder)


def _write_transformer(
    recipe: Recipe, samples: Mapping[str, Sequence[conversion.Sample]], folder: Path
) -> None:
    """Convert the backbone's encoder and decoder; they are quantised where there are samples."""
    width, _ = encoder_size(recipe.name)
    features = np.zeros((1, (TILE // PATCH) ** 2, width), np.float32)
    hidden = np.zeros((1, 1, features.shape[1]), bool)
    examples = {"encoder": (features, hidden), "decoder": (features, features, hidden)}
    for half, example in examples.items():
        converted = conversion.convert_transformer(recipe, half, example)
        if samples[half]:
            converted = conversion.quantized(converted, samples[half])
        conversion.save(converted, f"{half}_{BACKBONE}", folder)


def _copy_weights(recipe: Recipe, folder: Path) -> None:
    """Copy what is not converted, under the names by which a folder's files are found."""
    shutil.copyfile(recipe.backbone.verified_path(), folder / backbone_filename(recipe.name))
    for name, file in recipe.tokenizers:
        shutil.copyfile(file.verified_path(), folder / tokenizer_filename(recipe.name, name))


def _versions(*more: str) -> dict[str, str]:
    packages = dict.fromkeys(("terramind_xr", "terratorch", "torch", "openvino", *more))
    return {name: importlib.metadata.version(name) for name in packages}
