"""One measured batch: how long a run of the model takes on this machine, and what energy."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terramind_xr.kernels import GenerateKernel
from terramind_xr.model.execution import chosen_device

RAPL = Path("/sys/class/powercap")
"""Where Linux counts the energy of processors, for those who may read it."""


@dataclass(frozen=True)
class Calibration:
    """A batch that was run.

    Parameters
    ----------
    tiles
        Tiles of it.
    seconds
        That it took.
    joules
        That processors and GPU took meanwhile, whatever else they did; None where the system does not tell.
    where
        Device and threads, in words.
    """

    tiles: int
    seconds: float
    joules: float | None
    where: str

    @classmethod
    def of(cls, kernel: GenerateKernel, tiles: int) -> Calibration:
        """Run a batch of synthetic tiles twice: the first time loads and prepares all, the second counts."""
        import torch

        device = chosen_device(kernel.execution.device)
        batch = kernel.trial(tiles)
        kernel.run(*batch)
        query = _ask_gpu() if device.startswith("cuda") else None
        energy, start = _processor_joules(), time.perf_counter()
        kernel.run(*batch)
        seconds, spent = time.perf_counter() - start, _processor_joules()
        joules = None if energy is None or spent is None or spent < energy else spent - energy
        if query:
            watts = _watts(query)
            joules = None if watts is None else watts * seconds + (joules or 0.0)
        name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
        where = f"{device} {name}".strip()
        if device == "cpu":
            where = f"cpu, {torch.get_num_threads()} threads of torch"
        return cls(tiles, seconds, joules, where)

    def of_tiles(self, tiles: int) -> dict[str, Any]:
        """Time and energy of so many tiles, and how they are known."""
        share = tiles / self.tiles
        return {
            "seconds": share * self.seconds,
            "joules": None if self.joules is None else share * self.joules,
            "measured": f"{self.tiles} tiles in {self.seconds:.3g} s ({self.where})",
        }


def _processor_joules() -> float | None:
    """Energy that all processors have taken since some time; None where it cannot be read."""
    try:
        counters = [float((zone / "energy_uj").read_text()) for zone in RAPL.glob("intel-rapl:?")]
    except (OSError, ValueError):
        return None
    return sum(counters) / 1e6 if counters else None


def _ask_gpu() -> subprocess.Popen[str] | None:
    """Begin to ask for the power of the GPUs, which answers while they work."""
    path = shutil.which("nvidia-smi")
    if path is None:
        return None
    command = [path, "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _watts(query: subprocess.Popen[str]) -> float | None:
    """Power of all GPUs; None where they do not tell."""
    told, _ = query.communicate()
    try:
        return sum(float(line) for line in told.splitlines()) or None
    except ValueError:
        return None
