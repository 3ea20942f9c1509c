"""The Python blocks of README.md and docs/ are tests: they run as written, in a folder with a scene."""

import dataclasses
import doctest
import os
import tempfile

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

os.environ["HF_HUB_OFFLINE"] = "1"  # no network in tests


def enter_folder_with_a_scene(namespace):
    """Go where a page's reader is supposed to be: beside a Sentinel-2 file of their own, scene.tif."""
    import matplotlib
    import rioxarray  # noqa: F401 (gives arrays their .rio)

    import terramind_xr
    from terramind_xr.options import get_options

    matplotlib.use("agg")
    folder = tempfile.TemporaryDirectory()
    scene = terramind_xr.synthetic.scene(448)["S2L2A"]
    scene.assign_attrs(long_name=list(scene["band"].values)).rio.to_raster(f"{folder.name}/scene.tif")
    namespace["_left_behind"] = folder, os.getcwd(), dataclasses.asdict(get_options())
    os.chdir(folder.name)


def leave_it(namespace):
    """Take back what a page may set for good: options, the working folder, figures."""
    from matplotlib import pyplot as plt

    import terramind_xr

    folder, before, options = namespace["_left_behind"]
    plt.close("all")
    terramind_xr.set_options(**options)
    os.chdir(before)
    folder.cleanup()


pages = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)],
    patterns=["README.md", "docs/*.md"],
    setup=enter_folder_with_a_scene,
    teardown=leave_it,
)
pytest_collect_file = pages.pytest()
