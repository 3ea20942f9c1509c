"""The configurations of examples/ and their synthetic data sets, as terratorch reads and runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIGS = sorted((EXAMPLES / "configs").glob("*.yaml"))
LAYOUTS = ("sen1floods11", "burnscars", "crop")


@pytest.fixture(scope="module")
def make_dataset():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_dataset", EXAMPLES / "make_dataset.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(make_dataset, tmp_path_factory):
    """What the configurations' paths start from: each data set with six chips, and our module."""
    folder = tmp_path_factory.mktemp("finetune")
    for layout in LAYOUTS:
        make, lay_out = make_dataset.LAYOUTS[layout]
        lay_out(make_dataset.find_chips(make, 6, seed=0), folder / "out/data" / layout)
    (folder / "examples").symlink_to(EXAMPLES)
    return folder


def run(command, folder, text="", **variables):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.run(command, cwd=folder, env=environment, input=text, capture_output=True, text=True)


def read(path):
    with rasterio.open(path) as file:
        assert (file.crs.to_epsg(), file.res, file.shape) == (32632, (10, 10), (224, 224))
        return file.read()


def names_in(*paths):
    return [name for path in paths for name in path.read_text().split()]


@pytest.mark.slow
def test_sen1floods11(folder):
    data, splits = folder / "out/data/sen1floods11/data", folder / "out/data/sen1floods11/splits"
    parts = [splits / f"flood_{part}_data.txt" for part in ("train", "valid", "test")]
    assert [len(names_in(part)) for part in parts] == [4, 1, 1]
    wet, dry = [], []
    for name in names_in(*parts):
        optical = read(data / f"S2L1CHand/{name}_S2Hand.tif")
        radar = read(data / f"S1GRDHand/{name}_S1Hand.tif")
        (label,) = read(data / f"LabelHand/{name}_LabelHand.tif")
        assert (optical.shape[0], radar.shape[0]) == (13, 2)
        assert set(np.unique(label)) <= {-1, 0, 1}
        wet.append(np.median(optical[11][label == 1]))  # B11
        dry.append(np.median(optical[11][label == 0]))
    assert np.median(wet) < 0.6 * np.median(dry), "water is dark in the short-wave infrared"


@pytest.mark.slow
def test_burnscars(folder):
    data, splits = folder / "out/data/burnscars/data", folder / "out/data/burnscars/splits"
    names = names_in(*(splits / f"{part}.txt" for part in ("train", "val", "test")))
    assert len(set(names)) == 6
    for name in names:
        image, (mask,) = read(data / f"{name}_merged.tif"), read(data / f"{name}.mask.tif")
        assert (image.shape[0], image.dtype) == (6, np.float32)
        assert 0 <= image.min() < image.max() < 2
        burn_ratio = (image[3] - image[5]) / (image[3] + image[5])
        assert burn_ratio[mask == 1].mean() < burn_ratio[mask == 0].mean() - 0.2


@pytest.mark.slow
def test_crop(folder):
    data = folder / "out/data/crop"
    seen = set()
    for fold, count in (("training", 4), ("validation", 2)):
        names = names_in(data / f"{fold}_data.txt")
        assert len(names) == count
        for name in names:
            image = read(data / f"{fold}_chips/{name}_merged.tif").astype(float)
            (mask,) = read(data / f"{fold}_chips/{name}.mask.tif")
            assert image.shape[0] == 18
            seen |= set(np.unique(mask).tolist())
            green = [(image[i + 3] - image[i + 2]) / (image[i + 3] + image[i + 2]) for i in (0, 6, 12)]
            assert green[0][mask == 8].mean() > green[2][mask == 8].mean()  # winter wheat
            assert green[0][mask == 3].mean() < green[1][mask == 3].mean()  # corn
    assert {3, 4, 8, 9} <= seen <= set(range(14))
    assert len((data / "chips_df.csv").read_text().splitlines()) == 7


@pytest.mark.slow
def test_equal_seeds_make_equal_chips(make_dataset):
    one, same = (next(make_dataset.find_chips(make_dataset.burnt_chip, 1, seed=3)) for _ in range(2))
    assert one["merged"].equals(same["merged"])


def test_the_modality_tables_statistics():
    from terramind_xr.facts import modalities

    for path in CONFIGS:
        data = yaml.safe_load(path.read_text())["data"]["init_args"]
        for kind, of in (("means", "mean"), ("stds", "std")):
            if isinstance(data.get(kind), dict):
                for name, numbers in data[kind].items():
                    assert tuple(numbers) == tuple(getattr(modalities[name], of)), path.name
            elif "constant_scale" in data:
                bands = [band.terratorch for band in modalities["S2L2A"].bands]
                numbers = getattr(modalities["S2L2A"], of)
                assert data[kind] == [numbers[bands.index(band)] for band in data["dataset_bands"]]


BUILD = """
import json, sys
from terratorch.cli_tools import build_lightning_cli
built = {}
for path in json.loads(sys.stdin.readline()):
    cli = build_lightning_cli(["--config", path], run=False)
    cli.datamodule.setup("fit")
    batch = cli.datamodule.collate_fn([cli.datamodule.train_dataset[0]])
    built[path] = type(cli.model.model.encoder).__name__, tuple(batch["mask"].shape)
print("BUILT", json.dumps(built))
"""


@pytest.mark.slow
def test_terratorch_builds_every_configuration(folder):
    paths = [f"examples/configs/{path.name}" for path in CONFIGS]
    command = [sys.executable, "-W", "ignore", "-c", BUILD]
    modules = {"TERRATORCH_CUSTOM_MODULE_PATH": "examples/modules"}
    done = run(command, folder, text=json.dumps(paths), **modules)
    assert done.returncode == 0, done.stderr[-3000:]
    built = json.loads(done.stdout.partition("BUILT ")[2])
    assert set(built) == set(paths)
    for path, (encoder, shape) in built.items():
        plain = "TemporalWrapper" if "crop" in path else "TerraMindViT"
        expected = "TerraMindTiM" if "_tim_" in path else plain
        assert (encoder, shape) == (expected, [1, 224, 224])


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_terratorch_fits_and_tests(folder, path):
    program = [sys.executable, "-W", "ignore", "-m", "terratorch"]
    config = ["-c", f"examples/configs/{path.name}"]
    few = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--data.init_args.batch_size=2"]
    done = run([*program, "fit", *config, *few], folder)
    assert done.returncode == 0, done.stderr[-3000:]
    best = folder / "out/finetune" / path.stem / "best.ckpt"
    assert best.is_file()
    done = run([*program, "test", *config, "--ckpt_path", str(best)], folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "test/mIoU" in done.stdout

    import torch

    kept = torch.load(best, map_location="cpu", weights_only=True)
    backbone = kept["hyper_parameters"]["model_args"]["backbone"]
    assert backbone.startswith(("terramind_v1_tiny", "terramind_xr_demo"))
    if "burnscars" in path.stem:
        import terramind_xr

        scene = terramind_xr.synthetic.scene(224, modalities=("S2L2A",)).compute()
        burnt = scene.terramind.segment(best, path)
        assert burnt.attrs["flag_meanings"] == "Others Burned"


@pytest.mark.parametrize(
    "path", [each for each in CONFIGS if "burnscars" in each.stem], ids=lambda path: path.stem
)
@pytest.mark.parametrize("factor", [1, 10_000], ids=["reflectance", "digital numbers"])
def test_segment_says_what_terratorch_says_of_six_bands(
    folder, path, factor, tmp_path, monkeypatch, one_thread
):
    """Means by list, of reflectance or of what constant_scale makes of it."""
    import torch

    import finetuned
    import terramind_xr
    from terramind_xr.model.registry import register

    register()  # importing terratorch by itself lowers torch's precision
    from terratorch.datamodules import GenericNonGeoSegmentationDataModule
    from terratorch.tasks import SemanticSegmentationTask

    monkeypatch.chdir(folder)
    config = yaml.safe_load(path.read_text())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        task = SemanticSegmentationTask(**config["model"]["init_args"]).eval()
    checkpoint = finetuned.save(task, tmp_path / "best.ckpt")
    data = GenericNonGeoSegmentationDataModule(**config["data"]["init_args"])
    data.setup("test")
    batch = data.aug(data.collate_fn([data.test_dataset[0]]))
    with torch.inference_mode():
        expected = task(batch["image"]).output.softmax(1)[0].numpy()

    ds = terramind_xr.open_rasters({"S2L2A": batch["filename"][0]}).compute() * factor
    data = ds.S2L2A.isel(band=[3, 0, 5, 1, 4, 2]).assign_attrs(units="1" if factor == 1 else "DN")
    found = data.terramind.segment(checkpoint, path, probabilities=True, offset=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.attrs["terramind_bands"] == "S2L2A: B02 B03 B04 B8A B11 B12"
    assert found.category.values.tolist() == ["Others", "Burned"]
