"""What a user sees of the package: names, the line a warning points at, and the documentation of both."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import scenes
import terramind_xr
import terramind_xr.finetune  # loads what the reference names
from terramind_xr import accessor
from terramind_xr.errors import TerramindWarning, warn

ROOT = Path(__file__).parents[1]
PACKAGE = Path(terramind_xr.__file__).parent
SCENE = xr.Dataset({"S2L2A": (("y", "x"), np.zeros((2, 2)))})
METHODS = [
    "align", "detokenize", "embed", "evaluate", "generate", "plan", "plot", "reconstruct", "seam_index",
    "segment", "to_raster", "to_zarr", "tokenize", "validate", "with_stac",
]  # fmt: skip


def inside(depth):
    """A function that warns, `depth` calls further down in a file of the package."""
    source = ["from terramind_xr.errors import warn", "def call0(obj): warn('look here')"]
    source += [f"def call{n}(obj): call{n - 1}(obj)" for n in range(1, depth + 1)]
    names = {}
    exec(compile("\n".join(source), str(PACKAGE / "made_up.py"), "exec"), names)
    return names[f"call{depth}"]


def line_here():
    return inspect.currentframe().f_back.f_lineno


@given(depth=st.integers(0, 6), as_method=st.booleans())
def test_a_warning_points_at_the_line_of_the_user(depth, as_method):
    function = inside(depth)
    if as_method:
        bound = accessor._method(function).__get__(SCENE.terramind)
        with pytest.warns(TerramindWarning, match="look here") as caught:
            line, _ = line_here(), bound()
    else:
        with pytest.warns(TerramindWarning, match="look here") as caught:
            line, _ = line_here(), function(SCENE)
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, line)


def test_a_warning_of_a_user_who_calls_nothing_else_points_at_them():
    with pytest.warns(TerramindWarning) as caught:
        line, _ = line_here(), warn("look here")
    assert (caught[0].filename, caught[0].lineno) == (__file__, line)


@pytest.mark.parametrize("verb", ["generate", "plan"])
@pytest.mark.parametrize(
    "as_method",
    [False, True],
)
def test_doubt_about_the_data_points_at_the_line_of_the_user(verb, as_method):
    ds = scenes.plain("S2L2A", 32, 32).to_dataset()
    function = getattr(ds.terramind if as_method else terramind_xr, verb)
    arguments = ("LULC",) if as_method else (ds, "LULC")
    with pytest.warns(TerramindWarning) as caught:
        line, _ = line_here(), function(*arguments, model="demo")
    assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, line)}


@pytest.mark.parametrize("obj", [SCENE, SCENE.S2L2A])
def test_completion_of_the_accessor_shows_its_methods_alone(obj):
    assert dir(obj.terramind) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_the_function_of_the_package(name):
    """One docstring and one signature; the object takes the place of the first parameter."""
    function, method = getattr(terramind_xr, name), getattr(SCENE.terramind, name)
    assert method.__doc__ == function.__doc__
    parameters = list(inspect.signature(function).parameters.values())
    assert list(inspect.signature(method).parameters.values()) == parameters[1:]


def test_completion_of_the_package_shows_public_names_alone():
    """In a process of its own, before and after everything has been used."""
    code = (
        "import terramind_xr as t; before = dir(t); s = t.synthetic.scene(32)\n"
        "s.terramind.generate('LULC', model='demo'); assert dir(t) == before == sorted(t.__all__)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def documented():
    """Every object of the reference by the path that stands there."""
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    return {path: resolve(path) for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}


def resolve(path):
    """The object a path of the reference means: a module, or what a module holds."""
    module, _, name = path.rpartition(".")
    return sys.modules[path] if path in sys.modules else getattr(importlib.import_module(module), name)


def test_names_on_the_pages_can_be_reached():
    """`terramind_xr.x.y`, as it stands, is an attribute: the table of modalities hides its module."""
    pages = [path.read_text(encoding="utf-8") for path in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md")]
    pages += [inspect.getdoc(found) for found in documented().values()]
    names = {name for page in pages for name in re.findall(r"`terramind_xr\.([\w.]+)", page)}
    assert "lulc_classes" in names
    for name in names:
        attrgetter(name)(terramind_xr)


def test_the_reference_holds_every_public_name():
    holders = [found for found in documented().values() if inspect.ismodule(found)]
    held = [*documented().values(), *(value for module in holders for value in vars(module).values())]
    missing = [
        name
        for name in set(terramind_xr.__all__) - {"__version__", "finetune", "synthetic"}
        if not any(getattr(terramind_xr, name) is value for value in held)
    ]
    assert missing == []


@pytest.mark.parametrize(
    "path",
    [path for path in documented() if callable(documented()[path])],
)
def test_parameters_described_together_have_one_type_and_one_default(path):
    """The tables of the reference show for all of them what is true of the first."""
    found = documented()[path]
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n|\Z)", inspect.getdoc(found), re.DOTALL)
    joined = re.findall(r"^\w+(?:, \w+)+$", section.group(1), re.MULTILINE) if section else []
    parameters = inspect.signature(found).parameters
    for line in joined:
        kinds = {(parameters[name].annotation, parameters[name].default) for name in line.split(", ")}
        assert len(kinds) == 1, line
