"""Peak memory of a Zarr run over scenes of several sizes, each in a process of its own.

    python benchmarks/memory.py                       # 2745² and 10980² (a Sentinel-2 granule) pixels
    python benchmarks/memory.py --sizes 1000 2000

The scene is synthetic, read in chunks of 1024 that do not fit the blocks, and the model is the demo.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time

MIB = 1024  # ru_maxrss is in KiB on Linux


def peak() -> float:
    """Most memory that this process has taken, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def run(size: int) -> None:
    """One run in this process; the first, small one loads libraries and weights."""
    import terramind_xr

    terramind_xr.synthetic.scene(300).terramind.generate("LULC", model="demo").compute()
    before, start = peak(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scene = terramind_xr.synthetic.scene(size, chunks=1024)
        scene.terramind.generate("LULC", model="demo").terramind.to_zarr(f"{folder}/map.zarr", progress=False)
    seconds = time.perf_counter() - start
    print(f"{size:>7} {before:>14.0f} {peak():>9.0f} {peak() - before:>11.0f} {seconds:>9.1f}", flush=True)


def main() -> None:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2745, 10_980], help="sides in pixels")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run(arguments.one)
        return
    print(f"{'pixels':>7} {'before, MiB':>14} {'peak':>9} {'difference':>11} {'seconds':>9}", flush=True)
    for size in arguments.sizes:
        subprocess.run([sys.executable, __file__, "--one", str(size)], check=True)


if __name__ == "__main__":
    main()
