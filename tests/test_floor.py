"""What pyproject.toml allows has been tried: `make test-floor` runs on its floors."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
NEWEST = {"torch", "torchvision"}


def test_every_floor_is_pinned_where_it_is_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(each) for each in project["dependencies"] + project["optional-dependencies"]["test"]]
    floors = {
        each.name: limit.version for each in asked for limit in each.specifier if limit.operator == ">="
    }
    assert {each.name for each in asked} - set(floors) == NEWEST
    lines = (ROOT / "tests" / "floor.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert {each.name: str(each.specifier) for each in pins} == {
        name: f"=={version}" for name, version in floors.items()
    }
