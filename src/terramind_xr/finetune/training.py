"""Fine-tuning on one scene: a thin layer on terratorch's tasks and Lightning's trainer."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from terramind_xr.data import Mask, Names, Offset
from terramind_xr.data.metadata import missing_value
from terramind_xr.errors import OptionError
from terramind_xr.finetune.datamodule import Task, XarrayDataModule
from terramind_xr.finetune.polygons import rasterized
from terramind_xr.model.quiet import import_terratorch
from terramind_xr.model.recipe import find
from terramind_xr.model.registry import register
from terramind_xr.model.sampling import is_whole
from terramind_xr.options import get_options
from terramind_xr.scene import Scene

_LABELS = "terramind_labels"
_LAYERS = {"demo": (1, 2, 3, 4), "terramind_v1_large": (5, 11, 17, 23)}
"""Layers of the encoder that the decoder reads; those of 12 layers where nothing is said."""


@dataclass(frozen=True)
class Fitted:
    """A finished training; stands for its checkpoint wherever a path is taken.

    Parameters
    ----------
    checkpoint
        The best epoch's, by its loss on the tiles for validation.
    class_names
        In the order of the map's codes; empty for a regression.
    epochs
        How many were run.
    scores
        Of that checkpoint on the tiles for the test, as terratorch logs them; on those for validation where
        `splits` left none for the test.
    """

    checkpoint: Path
    class_names: tuple[str, ...]
    epochs: int
    scores: Mapping[str, float]

    def __fspath__(self) -> str:
        return str(self.checkpoint)


def fit(
    ds: xr.Dataset,
    labels: Any,
    folder: str | os.PathLike[str],
    *,
    inputs: Names = None,
    offset: str | Offset = "auto",
    mask: Mask = None,
    classes: Mapping[int, str] | None = None,
    column: str | None = None,
    task: Task = "segmentation",
    model: str | None = None,
    pretrained: bool = True,
    tim: Sequence[str] = (),
    freeze: bool = False,
    epochs: int = 30,
    minutes: float | None = None,
    patience: int = 8,
    learning_rate: float = 1e-3,
    batch_size: int = 8,
    stride: int | None = None,
    block: int = 2,
    gap: int = 32,
    splits: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    device: str | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> Fitted:
    """Fine-tune TerraMind on one scene, with a U-Net as decoder.

    Tiles are read as `XarrayDataModule` reads them, with its checks, its blocks for validation and test, and
    random turns. Training ends after `epochs` or `minutes`, or when `patience` epochs brought nothing better;
    the best checkpoint is kept, and `segment` takes it as it is. The state of the process's random numbers is
    left as it was.

    Parameters
    ----------
    ds
        Holds the inputs, and the labels if they are a variable.
    labels
        Name of a variable of the scene, a DataArray on its grid, or polygons (`geopandas.GeoDataFrame`, in
        any CRS), outside of which nothing is labelled.
    folder
        Where ``best.ckpt`` is written; made if need be.
    inputs
        Modalities to use, as for `terramind_xr.generate`.
    offset
        Radiometric offset within Sentinel-2 numbers, as for `terramind_xr.generate`.
    mask
        True where pixels of the inputs are not to be used, as for `terramind_xr.generate`.
    classes
        Name of each code, as for `XarrayDataModule`; of polygons, of each code in their column.
    column
        Column of the polygons that holds their class, by name or code.
    task
        ``"segmentation"`` or ``"regression"``.
    model
        Name from `terramind_xr.models`; by default the option ``model``.
    pretrained
        Start from the model's weights; else from random ones.
    tim
        Modalities that the model thinks in first, such as ``["LULC"]``.
    freeze
        Train the decoder alone.
    epochs
        Passes over the tiles for training, at most.
    minutes
        Time for all of them, at most.
    patience
        Epochs without a smaller loss on the tiles for validation, after which it ends.
    learning_rate
        Of the optimizer (AdamW).
    batch_size
        Tiles to a step.
    stride
        Pixels from one tile to the next within a block, as for `XarrayDataModule`.
    block
        Tiles to a side of a block.
    gap
        Pixels between blocks that belong to no tile.
    splits
        Shares of the labelled tiles for training, validation and test.
    seed
        Of the blocks, the new weights and the order of tiles.
    device
        torch device, e.g. ``"cuda"``; by default the option ``device``.
    num_workers
        Processes that read.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Fitted
        ``checkpoint``, ``class_names``, ``epochs``, ``scores``; stands for the checkpoint's path.

    Raises
    ------
    InputError
        With every fault of the data and its remedy.
    OptionError
        For options that cannot be used; `folder` holds a ``best.ckpt`` already.
    WeightsError
        If the model's weights are missing.

    Examples
    --------
    >>> import tempfile, terramind_xr
    >>> ds = terramind_xr.synthetic.scene(700, modalities=("S1GRD", "LULC"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trained = terramind_xr.finetune.fit(
    ...         ds, "LULC", folder, model="demo", block=1, epochs=1, progress=False, splits=(0.5, 0.25, 0.25)
    ...     )
    ...     made = ds[["S1GRD"]].terramind.segment(trained).compute()
    >>> made.dims, trained.class_names[:2]
    (('y', 'x'), ('water', 'trees'))
    """
    for name, value in {"epochs": epochs, "patience": patience, "batch_size": batch_size}.items():
        if not is_whole(value) or value < 1:
            raise OptionError(f"{name}={value!r} cannot be used: expected a whole number >= 1.")
    path = Path(folder) / "best.ckpt"
    if path.exists():
        raise OptionError(f"folder: {str(path)!r} exists already. Give another folder, or delete it first.")
    arguments = _model_arguments(model, pretrained, tim)
    module = XarrayDataModule(
        _with_labels(ds, labels, inputs, offset, column, classes),
        _LABELS,
        inputs=inputs,
        offset=offset,
        mask=mask,
        task=task,
        classes=None if _is_polygons(labels) else classes,
        batch_size=batch_size,
        stride=stride,
        block=block,
        gap=gap,
        splits=splits,
        seed=seed,
        num_workers=num_workers,
    )
    network_arguments = {**arguments, "backbone_modalities": module.modalities}
    chosen = get_options().device if device is None else device
    limit = None if minutes is None else datetime.timedelta(minutes=minutes)
    return _run(
        module, network_arguments, task, path, seed=seed, freeze=freeze, learning_rate=learning_rate,
        limits={"max_epochs": epochs, "max_time": limit}, patience=patience, device=chosen, progress=progress,
    )  # fmt: skip


def _is_polygons(labels: Any) -> bool:
    return hasattr(labels, "to_crs") and hasattr(labels, "geometry")


def _with_labels(
    ds: xr.Dataset,
    labels: Any,
    inputs: Names,
    offset: str | Offset,
    column: str | None,
    classes: Mapping[int, str] | None,
) -> xr.Dataset:
    """The scene with its labels as one more variable."""
    if not isinstance(ds, xr.Dataset):
        raise OptionError(f"ds is a {type(ds).__name__}; expected a Dataset: da.to_dataset(name='S2L2A').")
    if isinstance(labels, str):
        if labels not in ds.data_vars:
            listed = ", ".join(map(str, ds.data_vars))
            raise OptionError(f"labels={labels!r} is no variable of the scene, which has {listed}.")
        return ds.rename({labels: _LABELS}).assign({_LABELS: _told(ds[labels])})
    if _is_polygons(labels):
        like = Scene.of(ds, inputs, offset=offset).like
        return ds.assign({_LABELS: rasterized(labels, like, column=column, classes=classes)})
    if not isinstance(labels, xr.DataArray):
        raise OptionError(
            f"labels is a {type(labels).__name__}; expected the name of a variable, a DataArray on the grid "
            "of the scene, or polygons (a GeoDataFrame)."
        )
    return ds.assign({_LABELS: _told(labels)})


def _told(labels: xr.DataArray) -> xr.DataArray:
    """Labels whose attributes say what means no label, where their name did: LULC has a 0 for it."""
    missing = missing_value(labels)
    return labels if missing is None else labels.assign_attrs(nodata=missing)


def _model_arguments(model: str | None, pretrained: bool, tim: Sequence[str]) -> dict[str, Any]:
    """What terratorch's factory builds the model from."""
    name = model if model is not None else get_options().model
    if not isinstance(name, str):
        raise OptionError(f"model={name!r} cannot be fine-tuned: expected a name from models().")
    if isinstance(tim, str):
        raise OptionError(f"tim={tim!r} cannot be used: expected a list of modalities, such as [{tim!r}].")
    recipe = find(name, ())
    backbone = "terramind_xr_demo" if name == "demo" else name
    arguments: dict[str, Any] = {
        "backbone": f"{backbone}_tim" if tim else backbone,
        "backbone_pretrained": pretrained,
        "necks": [
            {"name": "SelectIndices", "indices": list(_LAYERS.get(name, (2, 5, 8, 11)))},
            {"name": "ReshapeTokensToImage", "remove_cls_token": False},
            {"name": "LearnedInterpolateToPyramidal"},
        ],
        "decoder": "UNetDecoder",
        "decoder_channels": [64, 32, 16, 8] if name == "demo" else [256, 128, 64, 32],
    }
    if tim:
        arguments["backbone_tim_modalities"] = list(tim)
    if pretrained and name != "demo":
        arguments["backbone_ckpt_path"] = str(recipe.backbone.verified_path())
    return arguments


def _run(
    module: XarrayDataModule,
    arguments: dict[str, Any],
    task: Task,
    path: Path,
    *,
    seed: int,
    freeze: bool,
    learning_rate: float,
    limits: dict[str, Any],
    patience: int,
    device: str | None,
    progress: bool,
) -> Fitted:
    import_terratorch()
    import lightning.pytorch as lightning
    import torch
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from lightning.pytorch.utilities.seed import isolate_rng
    from terratorch import tasks

    register()
    common = {
        "model_factory": "EncoderDecoderFactory",
        "freeze_backbone": freeze,
        "optimizer": "AdamW",
        "lr": learning_rate,
    }
    accelerator, _, number = (device or "auto").partition(":")
    best = ModelCheckpoint(path.parent, path.stem, monitor="val/loss", enable_version_counter=False)
    with isolate_rng():
        torch.manual_seed(seed)
        if task == "regression":
            network: Any = tasks.PixelwiseRegressionTask(arguments, loss="mse", **common)
        else:
            classes = {"num_classes": len(module.class_names)}
            network = tasks.SemanticSegmentationTask(
                {**arguments, **classes}, loss="ce", ignore_index=-1, class_names=module.class_names, **common
            )
        trainer = lightning.Trainer(
            accelerator={"cuda": "gpu"}.get(accelerator, accelerator),
            devices=[int(number)] if number else 1,
            callbacks=[best, EarlyStopping("val/loss", patience=patience)],
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=path.parent,
            **limits,
        )
        trainer.fit(network, datamodule=module)
        # Where `segment` looks for how the inputs were standardised.
        (path.parent / "config.yaml").write_text(
            "data:\n  class_path: terramind_xr.finetune.XarrayDataModule\n", encoding="utf-8"
        )
        epochs = trainer.current_epoch
        judge = trainer.test if module.tiles["test"] else trainer.validate
        (scores,) = judge(network, datamodule=module, ckpt_path=best.best_model_path, verbose=False)
    return Fitted(
        path, tuple(module.class_names), epochs, {key: float(value) for key, value in scores.items()}
    )
