"""Checkpoints as ``terratorch fit`` writes them: tasks of terratorch, untrained, saved by Lightning."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

TERRAMIND = {
    "backbone": "terramind_v1_tiny",
    "backbone_pretrained": False,
    "necks": [
        {"name": "SelectIndices", "indices": [2, 5, 8, 11]},
        {"name": "ReshapeTokensToImage", "remove_cls_token": False},
        {"name": "LearnedInterpolateToPyramidal"},
    ],
    "decoder": "UNetDecoder",
    "decoder_channels": [16, 8, 8, 8],
    "head_dropout": 0.1,
}
DEMO = {
    **TERRAMIND,
    "backbone": "terramind_xr_demo",
    "backbone_pretrained": True,
    "necks": [{"name": "SelectIndices", "indices": [1, 2, 3, 4]}, *TERRAMIND["necks"][1:]],
}
"""The demo's encoder instead: smaller, and trained. `terramind_xr.model.registry.register` comes first."""
CLASSES = ["bare land", "water", "cloud"]


def task_of(kind: str, modalities: list[str], seed: int = 0, class_names=None, **arguments):
    """An untrained task on TerraMind's tiny backbone; batch norms and heads say something all the same."""
    import torch

    from terramind_xr.model.quiet import import_terratorch

    import_terratorch()  # by itself, it lowers torch's precision
    from terratorch import tasks

    name = {
        "segmentation": "SemanticSegmentationTask",
        "regression": "PixelwiseRegressionTask",
        "classification": "ClassificationTask",
        "several labels": "MultiLabelClassificationTask",
        "scalar regression": "ScalarRegressionTask",
    }[kind]
    more = {} if "regression" in kind else {"class_names": class_names, "ignore_index": -1}
    if kind == "several labels":
        more["loss"] = "bce"
    sizes = {"num_outputs": 1} if "regression" in kind else {"num_classes": 3}
    arguments = {**TERRAMIND, "backbone_modalities": modalities, **sizes, **arguments}
    if kind not in ("segmentation", "regression"):
        necks = [{"name": "ReshapeTokensToImage", "remove_cls_token": False}]
        arguments = {**arguments, "decoder": "IdentityDecoder", "necks": necks}
        del arguments["decoder_channels"]
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        task = getattr(tasks, name)(model_args=arguments, model_factory="EncoderDecoderFactory", **more)
        for key, buffer in task.model.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(std=0.1)
        for parameter in task.model.head.parameters():
            parameter.normal_(std=0.3)
    return task.eval()


def save(task, path: Path, datamodule=None) -> Path:
    """Write a checkpoint by Lightning's own trainer, as it does while it trains on a data module."""
    from lightning import Trainer

    level = logging.getLogger("lightning.pytorch").level
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.strategy.connect(task)
        trainer.datamodule = datamodule
        trainer.save_checkpoint(path)
    logging.getLogger("lightning.pytorch").setLevel(level)
    return path


def config_of(task, **data):
    """The configuration of a task as Lightning writes it, with some of the data module's arguments."""
    settings = dict(task.hparams)
    name = type(task).__name__
    kept = ("model_args", "model_factory", "class_names")
    arguments = {key: settings[key] for key in kept if settings.get(key) is not None}
    module = "terratorch.datamodules.GenericMultiModalDataModule"
    return {
        "model": {"class_path": f"terratorch.tasks.{name}", "init_args": arguments},
        "data": {"class_path": module, "init_args": data},
    }


def forward(task, pixels):
    """What the task itself says of tiles: logits, or values."""
    import torch

    with torch.inference_mode():
        return task({key: torch.from_numpy(each) for key, each in pixels.items()}).output
