"""Scores of the demo model on held-out worlds of the synthetic landscape, beside baselines without a model.

    python benchmarks/demo_quality.py                                    # all sections, some minutes
    python benchmarks/demo_quality.py --only cover swaps --tiles 16
    python benchmarks/demo_quality.py --markdown scores.md --json scores.json

Outputs come from `terramind_xr.generate`, tiles without overlap, greedy unless said otherwise. Each tile of
224 × 224 pixels is from a world of its own, whose seed training has not used. The real tiles of the section
``real`` are for reporting alone: nothing is trained, tuned or selected on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import real_tiles
import torch
from demo_cover import classes, land_cover
from demo_faults import other_faults, swap_losses, swap_matrix
from demo_numbers import bands, decoding, regression, tokenizers
from demo_tables import Row, Table
from demo_tiles import held_out, predict

import terramind_xr

TILES = 128
PACKAGES = ("terramind_xr", "terratorch", "torch", "numpy", "xarray")


def real(model: str = "demo", data: Path = real_tiles.DATA) -> Table:
    """Real Sentinel-2 tiles as they come, by `real_tiles.evaluate`."""
    columns = ("tile", "LULC", "commonest class", "NDVI", "mean of the tile", "NDVI by formula")
    names = sorted(path.stem for path in (data / "S2L2A").glob("*.tif"))
    if not names:
        return Table("Real tiles", columns, (), "Skipped: the tiles are not there.")
    results = {name: real_tiles.evaluate(data, name, model, 0) for name in names}
    rows = [
        Row(name, (r.accuracy, r.majority, r.ndvi_error, r.ndvi_mean, r.ndvi_formula))
        for name, r in results.items()
    ]
    total = np.sum([result.confusion for result in results.values()], axis=0)
    by_tile = [row.values[2:] for row in rows]
    rows.append(
        Row(
            "all",
            (
                float(np.trace(total) / total.sum()),
                float(total.sum(axis=1).max() / total.sum()),
                *(float(np.mean(column)) for column in list(zip(*by_tile, strict=True))),
            ),
        )
    )
    note = (
        "Tiles of TerraMesh as they come (offset 0); nothing was trained, tuned or selected on them. LULC: "
        "share of the right pixels, and of the commonest class. NDVI: mean absolute differences from the "
        "tile's own of the generated one, of the tile's mean, and of the index of the bands."
    )
    return Table("Real tiles", columns, tuple(rows), note)


def speed(model: str = "demo") -> Table:
    """Seconds of one tile from S2L2A to LULC: the best of five, weights loaded."""
    tile = held_out(1)
    predict(tile, ("S2L2A",), "LULC", model)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        predict(tile, ("S2L2A",), "LULC", model)
        seconds.append(time.perf_counter() - start)
    note = f"Best of five, by terramind_xr.generate; {torch.get_num_threads()} threads of {processor()}."
    return Table("Time", ("one tile", "seconds"), (Row("LULC from S2L2A", (min(seconds),)),), note)


def processor() -> str:
    """Name of the CPU, as far as the system says it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def sections(tiles: int, model: str) -> dict[str, list[Callable[[], Table]]]:
    """Tables by section; what costs more or is compared in pairs takes fewer tiles."""
    quarter, some = max(tiles // 4, 2), max(3 * tiles // 8, 2)
    return {
        "cover": [partial(land_cover, tiles, model), partial(classes, tiles, model)],
        "numbers": [partial(table, quarter, model) for table in (regression, decoding, bands)],
        "tokenizers": [partial(tokenizers, quarter, model)],
        "swaps": [partial(table, some, model) for table in (swap_matrix, swap_losses, other_faults)],
        "real": [partial(real, model)],
        "speed": [partial(speed, model)],
    }


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument(
        "--tiles", type=int, default=TILES, help="held-out tiles; some sections take a share (%(default)s)"
    )
    parser.add_argument("--model", default="demo", help="name or folder (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=sections(TILES, ""), help="sections; all by default")
    parser.add_argument("--markdown", type=Path, help="file for the tables as Markdown")
    parser.add_argument("--json", type=Path, help="file for the tables with every digit")
    return parser.parse_args()


def circumstances(arguments: argparse.Namespace) -> dict[str, str]:
    """What the figures were made by."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "Command": shlex.join(["python", "benchmarks/demo_quality.py", *sys.argv[1:]]),
        "Model": arguments.model,
        "Tiles": f"{arguments.tiles} held-out worlds, seeds from 0; fewer where a table says so",
        "Versions": f"Python {platform.python_version()}, {packages}",
        "Processor": f"{processor()}, {torch.get_num_threads()} threads",
    }


def markdown(facts: dict[str, str], tables: list[Table]) -> str:
    """The whole report."""
    lines = "\n".join(
        f"- {name}: {f'`{fact}`' if name == 'Command' else fact}" for name, fact in facts.items()
    )
    return "\n".join([lines + "\n", *(table.markdown() for table in tables)])


def main() -> None:
    arguments = parse_arguments()
    if arguments.tiles < 2:
        sys.exit(f"--tiles {arguments.tiles}: expected at least 2.")
    facts = circumstances(arguments)
    print("\n".join(f"{name + ':':<11}{fact}" for name, fact in facts.items()), flush=True)
    tables: list[Table] = []
    for name, makers in sections(arguments.tiles, arguments.model).items():
        if arguments.only and name not in arguments.only:
            continue
        start = time.perf_counter()
        for make in makers:
            tables.append(make())
            print(f"\n{tables[-1].plain()}", flush=True)
        print(f"\n[{name}: {time.perf_counter() - start:.0f} s]", file=sys.stderr, flush=True)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(facts, tables))
    if arguments.json:
        report: dict[str, Any] = {**facts, "tables": [table.as_dict() for table in tables]}
        arguments.json.write_text(json.dumps(report, indent=1, default=float))


if __name__ == "__main__":
    warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"
    try:
        main()
    except terramind_xr.TerramindError as error:
        sys.exit(f"{type(error).__name__}: {error}")
