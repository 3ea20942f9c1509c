"""Where and in which precision a batch runs; the session that sets torch up for it."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from terramind_xr.errors import OptionError
from terramind_xr.model.quiet import full_precision
from terramind_xr.options import Precision, check_device, check_precision

_run_lock = threading.Lock()
"""One batch at a time in a process: torch's own threads already use every core, or the GPU."""


@dataclass(frozen=True)
class Execution:
    """On what a model runs; another choice changes results within a tolerance only.

    Raises OptionError for values that cannot be used.

    Parameters
    ----------
    device
        torch device; None takes a GPU where there is one.
    precision
        ``"fp32"``, or automatic mixed precision in ``"bf16"`` or ``"fp16"``.
    """

    device: str | None = None
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        check_device(self.device)
        check_precision(self.precision)


def chosen_device(device: str | None) -> str:
    """The device itself, or what None means in this process: a GPU where there is one.

    Without a driver torch is not asked, as importing it takes seconds.
    """
    if device or ("torch" not in sys.modules and not _has_driver()):
        return device or "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _has_driver() -> bool:
    """Whether the library of NVIDIA's driver is on this machine."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


@contextlib.contextmanager
def session(execution: Execution) -> Iterator[str]:
    """Device to run on, with torch set up for inference in the asked precision; not to be nested."""
    import torch

    device = chosen_device(execution.device)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"device={device!r}: this process sees no CUDA GPU. Use device=None or 'cpu'.")
    kind = torch.device(device).type
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[execution.precision]
    mixed = torch.autocast(kind, dtype=dtype, enabled=dtype is not torch.float32)
    with _run_lock, torch.inference_mode(), mixed, full_precision(kind):
        yield device
