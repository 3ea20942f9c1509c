"""Memory of a process beside what `plan` says: each case runs in a process of its own.

    python benchmarks/plan_memory.py                        # the demo, and full shapes of tiny, minutes
    python benchmarks/plan_memory.py --models demo --outputs LULC DEM --size 2000
    python benchmarks/plan_memory.py --stages --models tiny # what libraries, weights and batches take
    python benchmarks/plan_memory.py --sizes                # sizes of full-shape files, in bytes

`tiny`, `small`, `base` and `large` are the released shapes with random weights, saved as the released
files are. A process's own peak is the kernel's VmHWM (Linux only); the plan's
`peak_memory` is printed beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = 2**20
SIZES = ("tiny", "small", "base", "large")


def status(key: str) -> float:
    """VmRSS or VmHWM of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def save(folder: Path, size: str, outputs: list[str]) -> None:
    """Files as on the hub, of full shapes with weights of no meaning."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import upstream  # type: ignore[import-not-found]  # of the tests

    upstream.save_random_backbone(folder, size)
    for name in outputs:
        upstream.save_random_tokenizer(folder, name)


def run(model: str, outputs: list[str], size: int, batch_size: int) -> None:
    """A whole run to a Zarr store in this process, beside its plan."""
    import terramind_xr

    scene = terramind_xr.synthetic.scene(size, modalities=("S2L2A",), chunks=1024)
    options = {"model": model, "batch_size": batch_size, "diffusion_steps": 1}
    plan = scene.terramind.plan(outputs, **options)
    with tempfile.TemporaryDirectory() as folder:
        scene.terramind.generate(outputs, **options).terramind.to_zarr(f"{folder}/map.zarr", progress=False)
    planned, found = plan.peak_memory / MIB, status("VmHWM")
    what = f"{Path(model).name} {' '.join(outputs)}"
    print(
        f"{what:<24} {batch_size:>6} {plan.threads:>8} {planned:>9.0f} {found:>9.0f} {planned / found:>6.2f}"
    )


def stages(model: str, outputs: list[str], inputs: list[str]) -> None:
    """What a process takes after libraries and weights, and at most in batches of 1, 4 and 8 tiles."""
    import numpy as np

    from terramind_xr.facts import modalities
    from terramind_xr.model import chain
    from terramind_xr.model.batch import Batch
    from terramind_xr.model.execution import Execution
    from terramind_xr.model.quiet import import_terratorch
    from terramind_xr.model.recipe import find
    from terramind_xr.model.sampling import Sampling

    import_terratorch()
    chain.load(find("demo", outputs), Execution("cpu"))  # what is imported with the first model
    told = [f"libraries {status('VmRSS'):.0f}"]
    recipe, before = find(model, outputs), status("VmRSS")
    chain.load(recipe, Execution("cpu"))
    told.append(f"weights {status('VmRSS') - before:.0f}")
    loaded = status("VmRSS")
    for tiles in (1, 4, 8):
        pixels = {
            name: np.zeros((tiles, len(modalities[name].bands), 224, 224), np.float32) for name in inputs
        }
        visible = {name: np.ones((tiles, 14, 14), bool) for name in inputs}
        batch = Batch(pixels, visible, np.zeros((tiles, 2), np.int64))
        chain.generate(recipe, batch, tuple(outputs), Sampling(diffusion_steps=1), Execution("cpu"))
        told.append(f"{tiles} tiles {status('VmHWM') - loaded:.0f}")
    what = f"{Path(model).name} {' '.join(inputs)} to {' '.join(outputs)}"
    print(f"{what}, MiB: {', '.join(told)}", flush=True)


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--models", nargs="+", default=["demo", "tiny"], choices=["demo", *SIZES])
    parser.add_argument("--inputs", nargs="+", default=["S2L2A"], help="of --stages")
    parser.add_argument("--outputs", nargs="+", default=["LULC", "NDVI"])
    parser.add_argument("--size", type=int, default=600, help="side of the scene in pixels")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one and arguments.stages:
        stages(arguments.one, arguments.outputs, arguments.inputs)
        return
    if arguments.one:
        run(arguments.one, arguments.outputs, arguments.size, arguments.batch_size)
        return
    if not (arguments.stages or arguments.sizes):
        print(f"{'model, outputs':<24}  batch  threads plan, MiB peak, MiB  ratio", flush=True)
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / model
            folder.mkdir()
            if model != "demo":
                save(folder, model, arguments.outputs)
            if arguments.sizes:
                print({path.name: path.stat().st_size for path in sorted(folder.iterdir())}, flush=True)
                continue
            one = ["--one", model if model == "demo" else str(folder)]
            command = [sys.executable, __file__, *sys.argv[1:], *one]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
