"""The example of eight broken scenes runs, and every repaired map is nearly that of the sound scene."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "band_check.py"


@pytest.mark.slow
def test_eight_broken_scenes_are_repaired(tmp_path):
    command = [sys.executable, str(SCRIPT), "--size", "224", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert matplotlib.image.imread(tmp_path / "band_check.png").ndim == 3
    shares = re.findall(r"(no map|\d+%) │ +(\d+)% │", done.stdout)
    assert len(shares) == 8
    assert all(int(repaired) >= 90 for _, repaired in shares)
    assert sum(broken == "no map" or int(broken[:-1]) < 90 for broken, _ in shares) >= 7
