"""A map on a cluster whose worker is killed in the middle: the same bytes as on threads, in the end.

    python examples/cluster.py                    # a synthetic scene, the demo model, two workers
    python examples/cluster.py --size 4096

The demo model is for trying things out, not for science.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import dask
import torch
from distributed import Client, LocalCluster

import terramind_xr


def parse_arguments() -> argparse.Namespace:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("--size", type=int, default=1024, help="side of the synthetic scene in pixels")
    parser.add_argument("--output", type=Path, default=Path("out/cluster"), help="folder for the two maps")
    return parser.parse_args()


def chunks(store: Path) -> list[Path]:
    """Files with the values of a map, finished or not."""
    return [path for path in store.glob("LULC/c/*/*") if path.suffix != ".partial"]


def kill_a_worker(client: Client, store: Path, stop: threading.Event) -> None:
    """Kill the process of a worker as soon as the first chunk is written."""
    worker, process = next(iter(client.run(os.getpid).items()))
    while not chunks(store) and not stop.is_set():
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    print(f"Killed the worker {worker} after {len(chunks(store))} chunks.")


def contents(store: Path) -> dict[str, bytes]:
    """All that lies in a store."""
    files = (path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def main() -> None:
    arguments = parse_arguments()
    on_cluster, on_threads = arguments.output / "cluster.zarr", arguments.output / "threads.zarr"
    for store in (on_cluster, on_threads):
        shutil.rmtree(store, ignore_errors=True)
    scene = terramind_xr.synthetic.scene(arguments.size, modalities=("S2L2A",), chunks=512)
    with terramind_xr.set_options(block=2):  # smaller blocks than usual, so that there are some
        lulc = scene.terramind.generate("LULC", model="demo")

    # As dask's workers have: more threads add in another order.
    torch.set_num_threads(1)
    with dask.config.set(scheduler="threads"):
        lulc.terramind.to_zarr(on_threads)

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        terramind_xr.preload(client, "demo", "LULC")
        stop = threading.Event()
        killer = threading.Thread(target=kill_a_worker, args=(client, on_cluster, stop))
        killer.start()
        try:
            lulc.terramind.to_zarr(on_cluster)
        finally:
            stop.set()
            killer.join()

    if contents(on_cluster) != contents(on_threads):
        sys.exit("The two maps differ.")
    print(f"{len(chunks(on_cluster))} chunks, the same bytes as on threads: {on_cluster}")


if __name__ == "__main__":
    main()
