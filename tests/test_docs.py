"""The pages: every Python block is run (by conftest.py in the root), and what they name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

import terramind_xr
import terramind_xr.errors
from terramind_xr.accessor import TerramindAccessor

ROOT = Path(__file__).parents[1]
RUN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = sorted(name for name in vars(TerramindAccessor) if not name.startswith("_"))


def blocks(path):
    """Blocks that are run, of a page."""
    return list(Document.parse(str(path), PythonCodeBlockParser()).examples())


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_no_block_of_python_escapes_from_being_run(path):
    """Other spellings of the language, or an indented fence, would not be seen."""
    text = path.read_text("utf-8")
    fence = re.compile(r"^[ \t]*(?:```+|~~~+)[ {.]*(?:py|pycon|ipython).*$|^```(?!python)\w*\n(?=>>> )", re.M)
    lines = [text.count("\n", 0, found.start()) + 1 for found in fence.finditer(text)]
    run = {example.line for example in blocks(path)}
    assert [line for line in lines if not run & {line, line + 1}] == [], (
        "write ```python at the start of the line"
    )


def test_a_broken_block_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("A line.\n\n```python\nvalue = 1\n```\n\n```python\nassert value == 2\n```\n")
    right, wrong = blocks(page)
    right.evaluate()
    with pytest.raises(AssertionError):
        wrong.evaluate()


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_its_page(verb):
    page = ROOT / "docs" / f"{verb.replace('_', '-')}.md"
    assert page.is_file()
    assert f".terramind.{verb}(" in "".join(str(each.parsed) for each in blocks(page))


def test_each_page_is_in_the_navigation():
    # Of material's own tags, mkdocs.yml has none.
    (nav,) = re.findall(r"^nav:\n(?:  .*\n)+", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)

    def files(node):
        if isinstance(node, str):
            return [node]
        return [name for each in (node.values() if isinstance(node, dict) else node) for name in files(each)]

    assert sorted(files(yaml.safe_load(nav)["nav"])) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md")
    )


def test_the_reference_has_everything_public():
    text = (ROOT / "docs" / "reference.md").read_text("utf-8")
    is_error = {name for name in terramind_xr.__all__ if name in vars(terramind_xr.errors)}
    missing = [
        name
        for name in terramind_xr.__all__
        if not re.search(rf"(:: |`)terramind_xr\.[\w.]*\b{name}\b", text)
    ]
    assert set(missing) - is_error == {"__version__"}
    assert "::: terramind_xr.errors\n" in text


def test_what_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = {path for path in re.findall(r"`((?:src|tests|docs|benchmarks|tools|examples)/[\w./-]*)`", text)}
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.M)) <= targets


def test_the_version_to_cite_is_that_of_the_package():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (cited["version"], cited["title"], cited["license"]) == (
        project["version"], project["name"], project["license"],
    )  # fmt: skip
    assert [each["identifiers"][0]["value"] for each in cited["references"]] == [
        "arXiv:2504.11171",
        "arXiv:2504.11172",
    ]


def test_each_kind_of_fault_has_its_entry():
    source = "\n".join(path.read_text() for path in (ROOT / "src" / "terramind_xr" / "data").glob("*.py"))
    words = "bands|dimensions|product|shape|dtype|scale|units|metadata|offset|crs|resolution|grid|alignment"
    kinds = set(re.findall(rf'"((?:{words}|mask|values|sample|tokens|vocabulary|items)\.[a-z]+)"', source))
    entries = set(re.findall(r"\{ #([a-z]+\.[a-z]+) \}", (ROOT / "docs" / "checks.md").read_text()))
    assert kinds == entries
