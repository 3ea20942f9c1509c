"""`import terramind_xr` is cheap, and imports inside the package point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import terramind_xr

# A module may import only those that stand before it. A package counts as one module.
ORDER = (
    "errors", "options", "facts", "crs", "axis", "grid", "georeference", "conventions", "data", "noise",
    "model", "engine", "kernels", "token_raster", "token_inputs", "scene", "plans", "seams", "label",
    "evaluation", "legend", "plotting", "raster", "synthetic", "io", "alignment", "stac", "finetune", "api",
    "cluster",
    "accessor", "__init__",
)  # fmt: skip
TORCH = frozenset({"torch", "torchvision", "terratorch", "diffusers", "lightning"})
GRAPHS = frozenset({"dask", "distributed"})
LABELS = GRAPHS | {"xarray"}
NEVER = {
    "crs": TORCH | GRAPHS,
    "axis": TORCH | GRAPHS,
    "grid": TORCH | GRAPHS,
    "georeference": TORCH | GRAPHS,
    "conventions": TORCH | GRAPHS,
    "data": TORCH | GRAPHS,
    "engine": TORCH,
    "model": LABELS,
}

ROOT = Path(terramind_xr.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    """Name of the module, or of the package directly under the root, that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(node: ast.AST, depth: int) -> list[str]:
    """Absolute dotted names that a statement imports, in a file `depth` packages below terramind_xr."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level == 0:
        base = node.module or ""
    elif node.level <= depth:  # stays inside the file's own sub-package
        return []
    else:
        base = ".".join(filter(None, ("terramind_xr", node.module)))
    # `from . import tiling` names a module, `from .tiling import plan` does not: both are kept whole.
    return [f"{base}.{alias.name}" for alias in node.names] if base == "terramind_xr" else [base]


def run_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when the module is imported: no function bodies, no `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from run_on_import(node)


def violations(source: str, module: str, depth: int = 0) -> list[str]:
    """What the imports of a source text break, in words."""
    tree = ast.parse(source)
    found = []
    for name in (name for node in ast.walk(tree) for name in imported(node, depth)):
        top, _, rest = name.partition(".")
        if top == "terramind_xr":
            target = rest.split(".")[0]
            target = target if target in ORDER else "__init__"
            if target != module and ORDER.index(target) >= ORDER.index(module):
                found.append(f"{module} imports {target}, which comes after it")
        elif top in NEVER.get(module, ()):
            found.append(f"{module} must not import {top}")
    early = [] if module == "finetune" else run_on_import(tree)  # is imported when it is asked for
    for name in (name for node in early for name in imported(node, depth)):
        if name.split(".")[0] in TORCH:
            found.append(f"{module} imports {name} when it is imported: do it inside the function")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    module = module_of(path)
    assert module in ORDER, f"{module} has no place in ORDER"
    depth = len(path.relative_to(ROOT).parts) - 1
    assert violations(path.read_text(encoding="utf-8"), module, depth) == []


@pytest.mark.parametrize(
    ("module", "depth", "source"),
    [
        ("engine", 1, "from ..kernels import build"),
        ("engine", 1, "def f():\n    from .. import api"),
        ("engine", 0, "import terramind_xr.api"),
        ("engine", 0, "from terramind_xr import generate"),
        ("synthetic", 1, "from ..api import generate"),
        ("model", 1, "import torch"),
        ("model", 1, "class A:\n    from torch import nn"),
        ("model", 1, "try:\n    import terratorch.registry\nexcept ImportError:\n    pass"),
        ("model", 1, "def f():\n    import dask.array"),
        ("model", 1, "import xarray as xr"),
        ("engine", 1, "def f():\n    import torch"),
        ("data", 1, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("data", 1, "import dask.array as da"),
        ("data", 1, "from ..scene import Scene"),
        ("grid", 0, "from terramind_xr.data.layout import ModalityInput"),
    ],
)
def test_a_forbidden_import_is_found(module, depth, source):
    assert len(violations(source, module, depth)) == 1


@pytest.mark.parametrize(
    ("module", "depth", "source"),
    [
        ("engine", 1, "from .tiling import plan\nimport dask"),
        ("synthetic", 1, "from .fields import noise\nfrom ..noise import bits"),
        ("model", 1, "def f():\n    import torch"),
        ("model", 1, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("__init__", 0, "from .api import generate\nfrom . import synthetic"),
    ],
)
def test_an_allowed_import_passes(module, depth, source):
    assert violations(source, module, depth) == []


def test_no_public_name_is_that_of_a_module_as_well():
    """Else `import terramind_xr.name` and `terramind_xr.name` are two things."""
    modules = {module_of(path) for path in SOURCES}
    both = {name for name in terramind_xr.__all__ if name in modules}
    assert both == {"finetune", "synthetic"}  # the modules that are public themselves


def test_importing_the_package_is_cheap():
    heavy = {*TORCH, "pytorch_lightning", "matplotlib", "zarr", "distributed", "terramind_xr.synthetic"}
    code = f"import sys, terramind_xr; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
