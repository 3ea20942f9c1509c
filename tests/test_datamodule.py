"""Tiles for training: what they hold, how they are shared out, and what is refused."""

import itertools
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import terramind_xr
from terramind_xr import InputError, OptionError
from terramind_xr.facts import modalities
from terramind_xr.finetune import XarrayDataModule
from terramind_xr.finetune.tiles import starts_in_blocks

PLAIN = {"block": 1, "gap": 0, "tile": 112, "splits": (0.5, 0.25, 0.25)}


@pytest.fixture(scope="module")
def scene():
    return terramind_xr.synthetic.scene(360, modalities=("S2L2A", "S1GRD", "LULC"), offset=1000).load()


def module_of(ds, **options):
    return XarrayDataModule(ds, "LULC", **{**PLAIN, **options})


def samples(module):
    """All samples by their tile, without turns."""
    found = {}
    for split, tiles in module.tiles.items():
        dataset = module._dataset(split, transform=_to_tensor())
        found |= {tile: dataset[index] for index, tile in enumerate(tiles)}
    return found


def _to_tensor():
    from albumentations.pytorch import ToTensorV2

    return [ToTensorV2()]


def test_a_sample_is_the_standardised_window(scene):
    module = module_of(scene, inputs=["S2L2A", "S1GRD"])
    assert module.modalities == ["S2L2A", "S1GRD"]
    found = samples(module)
    assert len(found) == 9
    for tile, sample in found.items():
        window = scene.isel(y=slice(tile.row, tile.row + 112), x=slice(tile.column, tile.column + 112))
        for name, offset in (("S2L2A", 1000), ("S1GRD", 0)):
            facts = modalities[name]
            mean, std = (np.array(each)[:, None, None] for each in (facts.mean, facts.std))
            expected = (window[name].values - offset - mean) / std
            np.testing.assert_allclose(sample["image"][name], expected, rtol=1e-4, atol=1e-4)
        codes = [code for code, name in enumerate(terramind_xr.lulc_classes) if code]
        np.testing.assert_array_equal(sample["mask"], np.searchsorted(codes, window.LULC.values))
        assert sample["mask"].dtype == torch.int64


def test_samples_hold_the_bands_that_are_asked_for(scene):
    bands = {"S2L2A": ["B11", "blue", "NIR_NARROW"]}
    names = ["B11", "B02", "B8A"]
    every = samples(module_of(scene, inputs=["S2L2A", "S1GRD"]))
    few = scene.isel(band_S2L2A=[each in names for each in scene.band_S2L2A.values])
    for ds in (scene, few):
        module = module_of(ds, inputs=["S2L2A", "S1GRD"], bands=bands)
        assert module.backbone_bands == {"S2L2A": ["SWIR_1", "BLUE", "NIR_NARROW"], "S1GRD": ["VV", "VH"]}
        where = [modalities["S2L2A"].band_names.index(name) for name in names]
        for tile, sample in samples(module).items():
            assert torch.equal(sample["image"]["S2L2A"], every[tile]["image"]["S2L2A"][where])
            assert torch.equal(sample["image"]["S1GRD"], every[tile]["image"]["S1GRD"])
    with pytest.raises(InputError, match="no B11 in") as caught:
        module_of(few.isel(band_S2L2A=few.band_S2L2A.values != "B11"), inputs=["S2L2A"], bands=bands)
    assert len(caught.value.faults) == 1
    for wrong, message in (
        ({"S2L2A": ["B99"]}, "B99 is unknown"),
        ({"S2L2A": ["B02", "blue"]}, "none twice"),
        ({"S2L2A": []}, "found none"),
        ({"S2L1C": ["B02"]}, "S2L1C, which is no input"),
    ):
        with pytest.raises(OptionError, match=message):
            module_of(scene, inputs=["S2L2A"], bands=wrong)


def test_its_state_is_plain_and_tells_what_it_gave(scene, tmp_path):
    module = module_of(scene, inputs=["S1GRD", "S2L2A"], bands={"S2L2A": ["B04", "B02"]})
    torch.save(module.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state == module.state_dict()
    assert state["inputs"] == ["S1GRD", "S2L2A"]
    assert state["bands"]["S2L2A"] == ["B04", "B02"]
    assert state["means"]["S2L2A"] == [modalities["S2L2A"].mean[place] for place in (3, 1)]
    assert list(state["classes"]) == list(range(1, 10))


@given(
    size=st.integers(30, 500),
    tile=st.sampled_from([32, 48]),
    stride=st.integers(8, 32),
    block=st.integers(1, 4),
    gap=st.integers(0, 50),
)
def test_blocks_lie_apart(size, tile, stride, block, gap):
    blocks = starts_in_blocks(size, tile, stride, block, gap)
    ends = [(each[0], each[-1] + tile) for each in blocks]
    assert all(0 <= first < last <= size for first, last in ends)
    assert all(later[0] - earlier[1] >= gap for earlier, later in itertools.pairwise(ends))
    assert bool(blocks) == (size >= tile)
    assert all(len(each) == block for each in blocks[:-1])


def test_no_tile_touches_one_of_another_split():
    ds = terramind_xr.synthetic.scene(600, modalities=("S1GRD", "LULC")).compute()
    module = module_of(ds, tile=48, block=2, gap=32)
    places = {split: [(tile.row, tile.column) for tile in tiles] for split, tiles in module.tiles.items()}
    counts = {split: len(tiles) for split, tiles in places.items()}
    assert abs(counts["train"] / sum(counts.values()) - 0.5) < 0.1
    for one in places["train"]:
        for other in (*places["val"], *places["test"]):
            assert max(abs(one[0] - other[0]), abs(one[1] - other[1])) >= 48 + 32
    assert module_of(ds, tile=48, block=2, gap=32).tiles == module.tiles
    assert module_of(ds, tile=48, block=2, gap=32, seed=1).tiles != module.tiles


def test_tiles_without_labels_are_left_out(scene):
    few = scene.copy()
    few["LULC"] = scene.LULC.where((scene.y > scene.y[224]) & (scene.x < scene.x[200]), 0)
    assert {(tile.row, tile.column) for tile in samples(module_of(few, inputs=["S1GRD"]))} == {
        (0, 0), (0, 112), (112, 0), (112, 112),
    }  # fmt: skip
    with pytest.raises(InputError, match="found them in 0 blocks"):
        samples(module_of(scene.assign(LULC=scene.LULC * 0), inputs=["S1GRD"]))


def test_pixels_without_data_carry_no_label(scene):
    holes = scene.copy()
    holes["S1GRD"] = scene.S1GRD.where(scene.x > scene.x[10])
    for tile, sample in samples(module_of(holes, inputs=["S1GRD"])).items():
        empty = max(11 - tile.column, 0)
        assert (sample["mask"][:, :empty] == -1).all()
        assert (sample["mask"][:, empty:] >= 0).all()
        assert (sample["image"]["S1GRD"][:, :, :empty] == 0).all()


@pytest.mark.parametrize("way", ["chunked", "zarr", "netcdf", "flipped"])
def test_samples_do_not_depend_on_how_the_data_is_stored(scene, way, tmp_path):
    expected = samples(module_of(scene, inputs=["S1GRD"]))
    if way == "chunked":
        data = scene.chunk(y=100, x=77)
    elif way == "flipped":
        data = scene.isel(y=slice(None, None, -1))
    elif way == "zarr":
        data = str(tmp_path / "scene.zarr")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scene.to_zarr(data)
    else:
        data = tmp_path / "scene.nc"
        scene.to_netcdf(data)
    found = samples(module_of(data, inputs=["S1GRD"]))
    assert found.keys() == expected.keys()
    for tile, sample in found.items():
        assert torch.equal(sample["mask"], expected[tile]["mask"])
        assert torch.equal(sample["image"]["S1GRD"], expected[tile]["image"]["S1GRD"])


def test_labels_without_time_hold_for_every_date(scene):
    dates = xr.concat([scene.S1GRD, scene.S1GRD + 1], "time").assign_coords(time=[0, 1])
    found = samples(module_of(scene[["LULC"]].assign(S1GRD=dates)))
    assert len(found) == 18
    tile = next(iter(found))
    other = tile._replace(place=(1 - tile.place[0],))
    assert torch.equal(found[tile]["mask"], found[other]["mask"])
    assert not torch.equal(found[tile]["image"]["S1GRD"], found[other]["image"]["S1GRD"])


def test_turns_are_of_inputs_and_labels_together(scene):
    """The default for training: labels still belong to their pixels."""
    marked = scene.copy()
    marked["S1GRD"] = (scene.S1GRD * 0 + scene.LULC.values).assign_attrs(scene.S1GRD.attrs)
    with terramind_xr.set_options(check_values=False):
        module = module_of(marked, inputs=["S1GRD"], batch_size=4)
    module.setup("fit")
    facts = modalities["S1GRD"]
    for batch in module.train_dataloader():
        values = batch["image"]["S1GRD"][:, 0] * facts.std[0] + facts.mean[0]
        codes = [code for code, _ in enumerate(terramind_xr.lulc_classes) if code]
        assert torch.equal(torch.tensor(codes)[batch["mask"]], values.round().long())


def test_workers_read_the_same(scene):
    batches = []
    for workers in (0, 2):
        module = module_of(scene.chunk(y=100), inputs=["S1GRD"], num_workers=workers, splits=(0.2, 0.8, 0))
        module.setup("validate")
        batches.append(list(module.val_dataloader()))
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one["image"]["S1GRD"], other["image"]["S1GRD"])
        assert torch.equal(one["mask"], other["mask"])


def test_a_quantity_is_learnt_as_it_stands(scene):
    ds = scene[["S1GRD"]].assign(height=scene.LULC.astype("float32").where(scene.LULC != 1))
    ds["height"].attrs = {}
    module = XarrayDataModule(ds, "height", task="regression", **PLAIN)
    sample = next(iter(samples(module).values()))
    assert sample["mask"].dtype == torch.float32
    assert module.class_names == []


def test_what_cannot_be_used(scene):
    for options, error, message in (
        ({"tile": 100}, OptionError, "tile=100"),
        ({"stride": 200}, OptionError, "stride=200"),
        ({"splits": (0, 1, 0)}, OptionError, "splits="),
        ({"task": "detection"}, OptionError, "task='detection'"),
        ({"classes": {1: "water"}}, InputError, "holds the code"),
        ({"inputs": ["S2L1C"]}, InputError, "S2L1C"),
        ({"tile": 480}, InputError, "360 × 360 pixels"),
    ):
        with pytest.raises(error, match=message):
            samples(module_of(scene, **options))
    bare = scene.copy()
    bare["LULC"] = scene.LULC.assign_attrs(flag_values=0)
    del bare["LULC"].attrs["flag_values"]
    with pytest.raises(OptionError, match="nothing says which classes"):
        module_of(bare, inputs=["S1GRD"])
    with pytest.raises(InputError, match="no variable of the data"):
        XarrayDataModule(scene, "flood")
    with pytest.raises(InputError, match="cannot be opened"):
        XarrayDataModule("/nowhere.zarr", "flood")


@pytest.mark.slow
def test_a_task_of_terratorch_trains_on_it(scene, tmp_path):
    import lightning.pytorch as lightning
    from terratorch.tasks import SemanticSegmentationTask

    module = module_of(scene, inputs=["S1GRD"], batch_size=2)
    task = SemanticSegmentationTask(
        model_factory="EncoderDecoderFactory",
        model_args={
            "backbone": "terramind_v1_tiny",
            "backbone_pretrained": False,
            "backbone_modalities": module.modalities,
            "decoder": "FCNDecoder",
            "necks": [
                {"name": "SelectIndices", "indices": [2, 5, 8, 11]},
                {"name": "ReshapeTokensToImage", "remove_cls_token": False},
            ],
            "num_classes": len(module.class_names),
        },
        loss="ce",
        ignore_index=-1,
        class_names=module.class_names,
    )
    trainer = lightning.Trainer(max_steps=2, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.fit(task, datamodule=module)
    assert trainer.global_step == 2
    (scores,) = trainer.test(task, datamodule=module)
    assert np.isfinite(scores["test/loss"])


def test_a_configuration_can_name_it(tmp_path, scene):
    """As `terratorch fit -c` parses it, without a task."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningDataModule

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene[["S1GRD", "LULC"]].to_zarr(tmp_path / "scene.zarr")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
data:
  class_path: terramind_xr.finetune.XarrayDataModule
  init_args:
    data: {tmp_path}/scene.zarr
    labels: LULC
    inputs: [S1GRD]
    bands: {{S1GRD: [VH]}}
    classes: {{1: water, 2: trees, 3: marsh, 4: crops, 5: built, 6: bare, 7: snow, 8: cloud, 9: range}}
    tile: 112
    block: 1
    splits: [0.5, 0.25, 0.25]
    train_transform:
      - class_path: albumentations.HorizontalFlip
      - class_path: albumentations.pytorch.ToTensorV2
"""
    )
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LightningDataModule, "data")
    made = parser.instantiate_classes(parser.parse_args([f"--config={config}"])).data
    assert isinstance(made, XarrayDataModule)
    made.setup("fit")
    assert next(iter(made.train_dataloader()))["image"]["S1GRD"].shape[1:] == (1, 112, 112)
