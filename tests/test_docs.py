"""The pages: every Python block is run (by conftest.py in the root)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sybil.document import Document
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
RUN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path):
    """Blocks that are run, of a page."""
    return list(Document.parse(str(path), PythonCodeBlockParser()).examples())


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_no_block_of_python_escapes_from_being_run(path):
    """Other spellings of the language, or an indented fence, would not be seen."""
    fences = re.findall(r"^[ \t]*(?:```+|~~~+)\s*\{?\.?(?:py|pycon|ipython)", path.read_text("utf-8"), re.M)
    prompts = re.findall(r"^```\w*\n>>> ", path.read_text("utf-8"), re.M)
    seen = {example.line for example in blocks(path)}
    assert len(seen) >= len(fences), "write ```python at the start of the line"
    assert len(prompts) <= len(fences), "what has prompts is ```python"


def test_a_broken_block_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("A line.\n\n```python\nvalue = 1\n```\n\n```python\nassert value == 2\n```\n")
    right, wrong = blocks(page)
    right.evaluate()
    with pytest.raises(AssertionError):
        wrong.evaluate()
