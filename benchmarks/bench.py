"""The goals of speed beside what is measured: `make bench`, some 20 minutes on two cores.

    python benchmarks/bench.py --quick                             # smaller scenes, one diffusion step
    python benchmarks/bench.py --markdown docs/benchmarks.md       # writes the page of the documentation

All run in this process, on the same pixels, with the same weights (the tiny model's real size, random) and
the same number of torch threads; only the two workers and the import have processes of their own. Cases take
turns, and of each the best repetition counts. Without the extra `openvino` the rows of int8 are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import torch
import xarray as xr
from precision import batch_of, tokens_of
from scene import (
    INPUT,
    OURS_BLENDED,
    OVERLAP,
    RAW,
    Call,
    build_terratorch,
    our_cases,
    print_versions,
    random_scene,
    run_scene,
    run_terratorch,
    save_weights,
)

import terramind_xr
from terramind_xr.facts import TILE
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import find

STRIDE = TILE - OVERLAP
BATCH = 8
DIFFUSION = "NDVI"

EXPORTS: dict[str, tuple[Any, bool]] = {
    "fp32, exported": ("fp32", True),
    "int8 decoder": ("int8", False),
    "int8 decoder and backbone": ("int8", True),
}
"""Precision, and whether the backbone is converted, too."""

IMPORT = (
    "import time, xarray, rioxarray; start = time.perf_counter(), time.process_time(); import terramind_xr; "
    "print(time.perf_counter() - start[0], time.process_time() - start[1])"
)


@dataclass(frozen=True)
class Row:
    """What was measured, and whether it is what was aimed at."""

    what: str
    found: str
    goal: str = ""
    met: bool | None = None
    note: str = ""

    def line(self) -> str:
        """Row of the table in Markdown."""
        met = "" if self.met is None else "yes" if self.met else "no"
        return f"| {self.what} | {self.found} | {self.goal} | {met} | {self.note} |"


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--quick", action="store_true", help="4 tiles instead of 16, one diffusion step")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions (%(default)s)")
    parser.add_argument("--threads", type=int, help="of torch and OpenVINO; by default what torch chooses")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="(all)")
    parser.add_argument("--markdown", type=Path, help="file to write the table to, as a page")
    return parser.parse_args()


def best(cases: dict[str, Callable[[], Any]], repeat: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Least seconds of each case, and what it gave; they take turns.

    Each has a run before the one that counts: a process keeps the networks of two models, not of all.
    """
    made: dict[str, Any] = {}
    seconds = dict.fromkeys(cases, float("inf"))
    for _ in range(repeat):
        for name, run in cases.items():
            made[name] = run()
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds, made


def side(quick: bool) -> int:
    """Of a scene that tiles with this overlap cover without a rest, so that all run the same tiles."""
    return TILE + STRIDE * (1 if quick else 3)


def peer(model: torch.nn.Module, scene: torch.Tensor, call: Call, precision: str) -> Any:
    """Terratorch's tiled inference of the same tiles, with a precision of torch's float32 products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        # Padding by a delta of 0 pixels gives an empty result, so it is switched off with it.
        return run_terratorch(model, scene, call, {"stride": STRIDE, "delta": 0, "padding": False})
    finally:
        torch.set_float32_matmul_precision(before)


def against_terratorch(
    name: str, size: int, steps: int, goals: dict[str, float], repeat: int, folder: Path
) -> Iterator[Row]:
    """Rows of one output: terratorch twice, and ours in each precision."""
    model = build_terratorch([name]).to("cpu")
    model.timesteps = steps
    weights = folder / name
    weights.mkdir()
    save_weights(model, [name], weights)
    scene, call = random_scene(size), Call((name,), BATCH)
    whole = torch.from_numpy(scene[INPUT].values.astype(np.float32))[None]
    cases: dict[str, Callable[[], Any]] = {
        f"terratorch, {precision}": partial(peer, model, whole, call, precision)
        for precision in ("medium", "highest")
    }
    models: dict[str, Any] = {"fp32": weights, "bf16": weights}
    if importlib.util.find_spec("openvino") and importlib.util.find_spec("nncf"):
        for label, (precision, backbone) in EXPORTS.items():
            if label in goals:
                models[label] = terramind_xr.export(
                    weights, name, folder / f"{name}-{label}", precision=precision, backbone=backbone
                )
    for label, path in models.items():
        options = {"outputs": [name], "model": path, "batch_size": BATCH, "overlap": OVERLAP, "offset": 0}
        options |= {"diffusion_steps": steps, "device": "cpu"}
        options["precision"] = "bf16" if label == "bf16" else "fp32"
        cases[label] = partial(run_scene, scene, options)
    seconds, made = best(cases, repeat)
    fast = seconds["terratorch, medium"]
    what = f"{INPUT} → {name}" + (f", {steps} steps" if name != "LULC" else "")
    for label, each in seconds.items():
        ratio, goal = fast / each, goals.get(label)
        notes = [f"{each:.2f} s"]
        if not label.startswith("terratorch"):
            notes.append(f"{seconds['terratorch, highest'] / each:.2f} × of terratorch in highest")
            notes += agreement(name, models, label, made)
        yield Row(
            f"{what}: {label}",
            f"{ratio:.2f} ×",
            f"≥ {goal} ×" if goal else "",
            None if goal is None else ratio >= goal,
            "; ".join(notes),
        )


def agreement(name: str, models: dict[str, Any], label: str, made: dict[str, Any]) -> list[str]:
    """Tokens, and labels or mean absolute error, against our own fp32."""
    if label == "fp32":
        return []
    batch = batch_of(None, 4)
    execution = Execution("cpu", "bf16" if label == "bf16" else "fp32")
    ours, plain = (
        tokens_of(find(models[each], {name}), name, batch, run)
        for each, run in ((label, execution), ("fp32", Execution("cpu")))
    )
    tokens = f"tokens {(ours == plain).mean():.2%}"
    found, true = made[label][name], made["fp32"][name]
    if name == "LULC":
        return [tokens, f"labels {(found == true).mean():.2%}"]
    return [tokens, f"mean absolute error {np.abs(found - true).mean():.3g} of sd {true.std():.3g}"]


def lulc(arguments: argparse.Namespace, folder: Path) -> Iterator[Row]:
    goals = {"fp32": 1.1, "fp32, exported": 1.1, "bf16": 1.8}
    goals |= {"int8 decoder": 2.6, "int8 decoder and backbone": 3.3}
    yield from against_terratorch("LULC", side(arguments.quick), 1, goals, arguments.repeat, folder)


def diffusion(arguments: argparse.Namespace, folder: Path) -> Iterator[Row]:
    steps = 1 if arguments.quick else 2
    goals = {"fp32": 1.1, "fp32, exported": 1.1, "int8 decoder": 3.0}
    yield from against_terratorch(DIFFUSION, side(True), steps, goals, arguments.repeat, folder)


def scene(arguments: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """The whole library against the networks alone, tile for tile."""
    weights = folder / "scene"
    weights.mkdir()
    save_weights(build_terratorch(["LULC"]), ["LULC"], weights)
    size = 2 * TILE * (1 if arguments.quick else 2)
    cases = our_cases(random_scene(size), str(weights), Call(("LULC",), BATCH))
    seconds, _ = best({name: cases[name].run for name in (RAW, OURS_BLENDED)}, arguments.repeat)
    rates = {name: cases[name].tiles / each for name, each in seconds.items()}
    ratio = rates[OURS_BLENDED] / rates[RAW]
    note = f"{rates[OURS_BLENDED]:.2f} of {rates[RAW]:.2f} tiles/s"
    yield Row(f"scene of {size}² pixels / raw forward", f"{ratio:.2f}", "≥ 0.95", ratio >= 0.95, note)
    share, note = products(cases[RAW].run), "what no code around the networks can make faster in fp32"
    yield Row("matrix products in the raw forward", f"{share:.0%} of its time", note=note)


def products(run: Callable[[], Any]) -> float:
    """Share of the processor's time in matrix products, attention and convolutions."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    seconds = {each.key: each.self_cpu_time_total for each in profile.key_averages()}
    kinds = ("mm", "scaled_dot_product", "convolution")
    found = [each for key, each in seconds.items() if any(kind in key for kind in kinds)]
    return float(sum(found) / sum(seconds.values()))


def workers(arguments: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Workers of one thread each, through dask.distributed."""
    from dask.distributed import Client, LocalCluster

    weights = folder / "workers"
    weights.mkdir()
    save_weights(build_terratorch(["LULC"]), ["LULC"], weights)
    size = 672 if arguments.quick else 1120
    like = random_scene(TILE)[INPUT]
    values = dask.array.random.default_rng(0).integers(
        1, 4000, (len(like), size, size), dtype=np.uint16, chunks=(-1, 448, 448)
    )
    data = xr.DataArray(values, dims=like.dims, coords={"band": like.band}, attrs=like.attrs, name=INPUT)
    with terramind_xr.set_options(block=1, device="cpu"):
        result = data.to_dataset().terramind.generate("LULC", model=weights, offset=0, batch_size=1)
    seconds, repeat = {}, min(arguments.repeat, 2)
    for number in (1, 2):
        with (
            LocalCluster(n_workers=number, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster),
        ):
            seconds |= best({str(number): result.data.sum().compute}, repeat)[0]
    ratio = seconds["1"] / seconds["2"]
    note = f"{size}² pixels: {seconds['1']:.1f} s, {seconds['2']:.1f} s; best of {repeat}"
    yield Row("two workers of one thread / one", f"{ratio:.2f} ×", "≥ 1.9 ×", ratio >= 1.9, note)


def imports(arguments: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """The import, where xarray and rioxarray are imported already."""
    command = [sys.executable, "-c", IMPORT]
    runs = [subprocess.check_output(command).split() for _ in range(2 + arguments.repeat)]
    wall, busy = np.min(np.array(runs, float), axis=0)
    note = f"{busy:.2f} s of a processor"
    yield Row("import, after xarray and rioxarray", f"{wall:.2f} s", "< 0.3 s", bool(wall < 0.3), note)


PARTS = {"lulc": lulc, "diffusion": diffusion, "scene": scene, "workers": workers, "import": imports}

PAGE = """# Benchmarks

What `make bench` printed, beside what is aimed at. It runs `benchmarks/bench.py`, which needs no network: a
model of the tiny one's real size with random weights, whose times are those of the released one, and whose
agreement says nothing of it (`benchmarks/precision.py` measures that for weights you have).

Ratios are speed over terratorch's own `tiled_inference` of the same tiles in the same process (stride
{stride}, overlap {overlap}), as it comes: importing terratorch sets torch's `float32_matmul_precision` to
"medium", with which float32 products run in bf16 on processors that have it. Notes tell the ratio to
terratorch in "highest" as well, which is what our fp32 is.

{table}

Where a goal is missed: in fp32 nearly all of the time is in matrix products, which are torch's own on both
sides, and terratorch in "medium" makes them in bf16; exported in fp32, they are OpenVINO's. With an int8
decoder, the encoder is left in fp32, and what is left of the decoder is int8 products for the most part. Two
workers share two cores with the scheduler and the client. What feeds the networks is measured by
`benchmarks/plumbing.py`.

{setting}
"""


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    start, rows = time.perf_counter(), []
    setting = io.StringIO()
    with redirect_stdout(setting):
        optional = [name for name in ("openvino", "nncf") if importlib.util.find_spec(name)]
        print_versions("terramind_xr", "terratorch", "torch", *optional, "dask", "xarray", "numpy")
    head = "| what | found | goal | met | |\n|---|---|---|---|---|"
    print(f"{setting.getvalue()}\n{head}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.only:
            for row in PARTS[part](arguments, Path(folder)):
                rows.append(row.line())
                print(rows[-1], flush=True)
    minutes = (time.perf_counter() - start) / 60
    command = " ".join(("python benchmarks/bench.py", *sys.argv[1:]))
    ending = f"command    {command}, best of {arguments.repeat} repetitions, {minutes:.0f} minutes"
    print(f"\n{ending}")
    if arguments.markdown:
        quoted = "".join(f"    {line}\n" for line in (*setting.getvalue().splitlines(), ending)).rstrip()
        table = "\n".join((head, *rows))
        page = PAGE.format(stride=STRIDE, overlap=OVERLAP, table=table, setting=quoted)
        arguments.markdown.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
