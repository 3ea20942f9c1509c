"""Tiles of xarray objects and Zarr stores as a Lightning data module, for terratorch's tasks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dask
import lightning.pytorch as lightning
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from terramind_xr.data import Bands, Mask, Names, Offset
from terramind_xr.engine import Source, Tiling
from terramind_xr.errors import InputError, OptionError
from terramind_xr.finetune.labels import IGNORED, Labels
from terramind_xr.finetune.tiles import (
    SPLITS,
    Block,
    Tile,
    check_sides,
    checked_splits,
    shared_out,
    starts_in_blocks,
)
from terramind_xr.kernels import KernelInput
from terramind_xr.model.training import BY_TABLE
from terramind_xr.scene import Scene

Sample = dict[str, Any]
Data = str | os.PathLike[str] | xr.Dataset
Task = Literal["segmentation", "regression"]


@dataclass(frozen=True)
class LabelledScene:
    """A checked scene with its labels, from which tiles are read.

    Parameters
    ----------
    scene
        Inputs, north up.
    labels
        On the same grid.
    inputs
        How each input is read.
    sources
        Arrays that they are read from, in order.
    """

    scene: Scene
    labels: Labels
    inputs: tuple[KernelInput, ...]
    sources: tuple[Source, ...]

    @classmethod
    def of(cls, scene: Scene, labels: Labels) -> LabelledScene:
        """Make what reading takes."""
        tiling = Tiling.of(scene.grid.shape)
        return cls(scene, labels, scene.kernel_inputs(), tuple(scene.sources(tiling)))

    def read(self, tile: Tile, side: int) -> dict[str, NDArray[Any]]:
        """Standardised inputs (y, x, band) by modality, and the labels (y, x) as ``mask``.

        Pixels without data are 0, the mean of their band. Labels of pixels without any data are none.
        """
        rows, columns = slice(tile.row, tile.row + side), slice(tile.column, tile.column + side)
        windows = [
            source.array[(*(tile.place[axis] for axis in source.axes), slice(None), rows, columns)]
            for source in self.sources
        ]
        regions = iter(dask.compute(*windows, scheduler="synchronous"))
        layers = {each.name: each.layer(regions) for each in self.inputs}
        sample = {name: np.moveaxis(layer.whole(), 0, -1) for name, layer in layers.items()}
        labels = self.labels.read(tile, side, self.scene.extra)
        seen = np.any([layer.valid for layer in layers.values()], axis=0)
        labels[~seen] = IGNORED if self.labels.classes else np.nan
        return {**sample, "mask": labels}


class TileDataset(Dataset[Sample]):
    """Tiles of labelled scenes, as terratorch's tasks take them."""

    def __init__(self, scenes: Sequence[LabelledScene], tiles: Sequence[Tile], side: int, transform: Any):
        self.scenes, self.tiles, self.side, self.transform = scenes, tiles, side, transform

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> Sample:
        tile = self.tiles[index]
        scene = self.scenes[tile.scene]
        sample = self.transform(scene.read(tile, self.side))
        image = {each.name: sample[each.name] for each in scene.inputs}
        return {"image": image, "mask": sample["mask"], "filename": str(tuple(tile))}


class XarrayDataModule(lightning.LightningDataModule):
    """Tiles of scenes with labels, read lazily, for terratorch's segmentation and regression tasks.

    A scene is cut into blocks of tiles. Each block is for training, for validation or for the test, as a
    whole and with a gap to the next, so that nothing is judged by tiles whose neighbours were trained on.
    Tiles without any label are left out. Inputs are checked as `generate` checks them, their offset is taken
    off, and they are standardised by the modality table, as TerraMind was trained: a task needs no means.
    Lightning keeps in a checkpoint what `segment` has to know of them (`state_dict`).

    Parameters
    ----------
    data
        A Dataset that holds inputs and labels on one grid, or the path of a Zarr store or netCDF file with
        one; or several, with the same inputs.
    labels
        Name of the variable of labels: codes of classes, or a quantity. It may lack the time dimension.
    inputs
        Modalities to use, as for `terramind_xr.generate`.
    bands
        Of some modalities, the bands to use, in the order in which samples hold them, by any of their names:
        ``{"S2L2A": ["B02", "B03", "B04"]}``; the data may lack the others. The backbone takes
        `backbone_bands`.
    offset
        Radiometric offset within Sentinel-2 numbers, as for `terramind_xr.generate`.
    mask
        True where pixels of the inputs are not to be used, as for `terramind_xr.generate`; their labels are
        none.
    task
        ``"segmentation"`` or ``"regression"``.
    classes
        Name of each code. By default those of ``flag_values`` and ``flag_meanings``. In the order of the
        codes they become 0, 1, …, with -1 where there is no label (NaN, the declared no-data value).
    batch_size
        Tiles to a batch.
    tile
        Side of a tile in pixels, a multiple of 16.
    stride
        Pixels from one tile to the next within a block; by default the tile's side.
    block
        Tiles to a side of a block.
    gap
        Pixels between blocks that belong to no tile.
    splits
        Shares of the labelled tiles for training, validation and test.
    seed
        Of the choice of blocks, and of the transforms.
    train_transform
        Albumentations' transforms on (y, x, band) of all inputs and labels together, as for terratorch's
        data modules; they end with ``ToTensorV2``. By default flips and turns by quarters.
    num_workers
        Processes that read.

    Raises
    ------
    InputError
        With every fault of the data and its remedy.
    OptionError
        For options that cannot be used.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(900, modalities=("S2L2A", "S1GRD", "LULC"))
    >>> module = terramind_xr.finetune.XarrayDataModule(
    ...     ds, "LULC", inputs=["S2L2A", "S1GRD"], block=1, splits=(0.6, 0.2, 0.2)
    ... )
    >>> module.setup("fit")
    >>> batch = next(iter(module.val_dataloader()))
    >>> tuple(batch["image"]["S1GRD"].shape)[1:], tuple(batch["mask"].shape)[1:]
    ((2, 224, 224), (224, 224))
    """

    def __init__(
        self,
        data: Data | list[Data],
        labels: str,
        *,
        inputs: Names = None,
        bands: dict[str, list[str]] | None = None,
        offset: str | Offset = "auto",
        mask: Mask = None,
        task: Task = "segmentation",
        classes: Mapping[int, str] | None = None,
        batch_size: int = 8,
        tile: int = 224,
        stride: int | None = None,
        block: int = 2,
        gap: int = 32,
        splits: tuple[float, float, float] = (0.7, 0.15, 0.15),
        seed: int = 0,
        train_transform: list[Any] | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if task not in ("segmentation", "regression"):
            raise OptionError(f"task={task!r} cannot be used: expected 'segmentation' or 'regression'.")
        self.tile, self.stride, self.block, self.gap = tile, tile if stride is None else stride, block, gap
        check_sides(tile, self.stride, block, gap)
        self.splits, self.seed = checked_splits(splits), seed
        self.batch_size, self.num_workers = batch_size, num_workers
        given = data if isinstance(data, list) else [data]
        self.scenes = [
            _labelled(_opened(each), labels, inputs, bands or {}, offset, mask, task, classes)
            for each in given
        ]
        self._check_alike()
        if unused := set(bands or {}) - set(self.modalities):
            raise OptionError(
                f"bands names {', '.join(sorted(unused))}, which is no input; the inputs are "
                f"{', '.join(self.modalities)}."
            )
        self.train_transform = train_transform
        self._tiles: dict[str, list[Tile]] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes 0, 1, …: what a task takes as ``class_names``."""
        return list(self.scenes[0].labels.classes.values())

    @property
    def modalities(self) -> list[str]:
        """Inputs in the order in which a backbone is to have them."""
        return [each.name for each in self.scenes[0].inputs]

    @property
    def backbone_bands(self) -> dict[str, list[str]]:
        """What a backbone of terratorch takes as ``backbone_bands``: its names of the bands of samples."""
        return {
            each.name: [band.terratorch for band in each.modality.bands] for each in self.scenes[0].inputs
        }

    def state_dict(self) -> dict[str, Any]:
        """What `segment` has to know of the data, in plain values; Lightning keeps it in checkpoints."""
        rows = [each.modality for each in self.scenes[0].inputs]
        return {
            "standardized_by": BY_TABLE,
            "inputs": self.modalities,
            "bands": {row.name: list(row.band_names) for row in rows},
            "means": {row.name: list(row.mean) for row in rows},
            "stds": {row.name: list(row.std) for row in rows},
            "classes": {int(code): str(name) for code, name in self.scenes[0].labels.classes.items()},
        }

    @property
    def tiles(self) -> dict[str, list[Tile]]:
        """Labelled tiles of each split; all labels are read for it, once."""
        if self._tiles is None:
            self._tiles = self._split()
        return self._tiles

    def _check_alike(self) -> None:
        first = self.scenes[0]
        for number, each in enumerate(self.scenes):
            if [one.name for one in each.inputs] != self.modalities:
                raise InputError(
                    f"data: dataset {number} has the inputs {', '.join(one.name for one in each.inputs)}, "
                    f"expected those of the first, {', '.join(self.modalities)}. Name them: inputs=[…]."
                )
            if each.labels.classes != first.labels.classes:
                raise InputError(
                    f"data: the classes of dataset {number} are {each.labels.classes}, expected those of "
                    f"the first, {first.labels.classes}. Say them for all: classes={{0: 'dry', …}}."
                )

    def _split(self) -> dict[str, list[Tile]]:
        tiles: dict[Block, list[Tile]] = {}
        for number, each in enumerate(self.scenes):
            height, width = each.scene.grid.shape
            if min(height, width) < self.tile:
                raise InputError(
                    f"data: the scene has {height} × {width} pixels, less than a tile of {self.tile}. Take "
                    "smaller tiles: tile=112."
                )
            rows, columns = (
                starts_in_blocks(size, self.tile, self.stride, self.block, self.gap)
                for size in (height, width)
            )
            places = list(np.ndindex(*(index.size for index in each.scene.extra.values())))
            for i, down in enumerate(rows):
                for j, across in enumerate(columns):
                    tiles[number, i, j] = [
                        Tile(number, place, row, column)
                        for place in places
                        for row in down
                        for column in across
                    ]
        every = [tile for block in tiles.values() for tile in block]
        found = dask.compute(
            *(
                self.scenes[each.scene].labels.are_in(each, self.tile, self.scenes[each.scene].scene.extra)
                for each in every
            )
        )
        labelled = {tile for tile, holds in zip(every, found, strict=True) if holds}
        kept = {block: [tile for tile in each if tile in labelled] for block, each in tiles.items()}
        blocks = shared_out({block: len(each) for block, each in kept.items()}, self.splits, self.seed)
        return {name: [tile for block in sorted(blocks[name]) for tile in kept[block]] for name in SPLITS}

    def setup(self, stage: str | None = None) -> None:
        """Share the tiles out; Lightning calls it."""
        self.train_dataset = self._dataset("train", self.train_transform)
        self.val_dataset, self.test_dataset = self._dataset("val"), self._dataset("test")

    def _dataset(self, split: str, transform: list[Any] | None = None) -> TileDataset:
        from terratorch.datamodules.generic_multimodal_data_module import wrap_in_compose_is_list
        from terratorch.datamodules.utils import instantiate_transform_from_dict
        from terratorch.datasets.transforms import MultimodalTransforms

        if transform is None:
            transform = _default_transform(is_for_training=split == "train")
        made = [instantiate_transform_from_dict(each) for each in transform]  # as YAML gives them
        composed = wrap_in_compose_is_list(made, self.modalities)
        composed.set_random_seed(self.seed)
        shared = MultimodalTransforms(composed, shared=True)
        return TileDataset(self.scenes, self.tiles[split], self.tile, shared)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches of tiles for training, in random order."""
        return self._loader(self.train_dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Batches of tiles for validation."""
        return self._loader(self.val_dataset)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Batches of tiles for the test."""
        return self._loader(self.test_dataset)

    def _loader(self, dataset: TileDataset, *, shuffle: bool = False) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


def _opened(data: Data) -> xr.Dataset:
    if isinstance(data, xr.Dataset):
        return data
    if not isinstance(data, str | os.PathLike):
        raise InputError(
            f"data is a {type(data).__name__}; expected a Dataset with inputs and labels, or the path of one."
        )
    try:
        opened: xr.Dataset = xr.open_dataset(data, chunks={}, decode_coords="all")
    except (OSError, ValueError) as error:
        raise InputError(f"data: {str(data)!r} cannot be opened: {str(error).splitlines()[0]}") from None
    return opened


def _labelled(
    ds: xr.Dataset,
    labels: str,
    inputs: Names,
    bands: Bands,
    offset: str | Offset,
    mask: Mask,
    task: Task,
    classes: Mapping[int, str] | None,
) -> LabelledScene:
    if labels not in ds.data_vars:
        listed = ", ".join(map(str, ds.data_vars))
        raise InputError(f"labels={labels!r} is no variable of the data, which has {listed}.")
    scene = Scene.of(ds.drop_vars(labels), inputs, bands=bands, offset=offset, mask=mask)
    return LabelledScene.of(scene, Labels.of(ds[labels], scene, classes, task))


def _default_transform(*, is_for_training: bool) -> list[Any]:
    import albumentations
    from albumentations.pytorch import ToTensorV2

    return [*([albumentations.D4()] if is_for_training else []), ToTensorV2()]
