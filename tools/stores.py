"""Write the stores in tests/data that later releases are tested to open and to go on with.

    python tools/stores.py --output tests/data        # of a release: once, and never again

A finished map of the demo model, and what a broken run leaves of a map that no model is needed for.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

import dask

import terramind_xr

sys.path.append(str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the stores")
    arguments = parser.parse_args()
    from test_resume import FAILING, kept_map

    release = version("terramind_xr")
    lulc = terramind_xr.synthetic.scene(64, seed=3).chunk().terramind.generate("LULC", model="demo")
    lulc.terramind.to_zarr(arguments.output / f"finished-{release}.zarr", progress=False)
    FAILING.append((384, 192))
    try:
        with dask.config.set(scheduler="sync"):
            kept_map().terramind.to_zarr(arguments.output / f"broken-{release}.zarr", progress=False)
    except RuntimeError:
        print(f"Wrote the stores of {release} to {arguments.output}.")


if __name__ == "__main__":
    main()
