"""Where and in which precision a batch runs; the session that sets torch up for it."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from terramind_xr.errors import DeviceMemoryError, OptionError
from terramind_xr.model.quiet import full_precision
from terramind_xr.options import Precision, check_device, check_precision

_run_lock = threading.Lock()
"""One batch at a time in a process: torch's own threads already use every core, or the GPU."""


@dataclass(frozen=True)
class Execution:
    """On what a model runs; another choice changes results within a tolerance only.

    Raises OptionError for values that cannot be used; what depends on the machine is seen by `session`.

    Parameters
    ----------
    device
        torch device; None takes a GPU where there is one.
    precision
        ``"fp32"``, or automatic mixed precision in ``"bf16"`` or ``"fp16"``: products in it, and in fp32 what
        decides tokens (tokenizers up to the quantiser, logits) and the steps of diffusion.
    """

    device: str | None = None
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        check_device(self.device)
        check_precision(self.precision)
        if self.device == "cpu":
            _check_processor(self.precision)


def _check_processor(precision: Precision) -> None:
    if precision == "fp16":
        raise OptionError(
            "precision='fp16' is for GPUs: a processor would be slower than in fp32. "
            "Use precision='bf16' or 'fp32', or device='cuda'."
        )


def _check_sees(device: str, kind: str) -> None:
    import torch

    others = {
        "cuda": ("CUDA GPU", torch.cuda),
        "mps": ("GPU of Apple's", torch.backends.mps),
        "xpu": ("Intel GPU", torch.xpu),
    }
    title, module = others.get(kind, ("", None))
    if module is not None and not module.is_available():
        raise OptionError(f"device={device!r}: this process sees no {title}. Use device=None or 'cpu'.")


def _check_card(device: str, precision: Precision) -> None:
    import torch

    number, count = torch.device(device).index, torch.cuda.device_count()
    if number is not None and number >= count:
        raise OptionError(
            f"device={device!r}: of CUDA GPUs, this process sees {count}, counted from 'cuda:0' "
            "(CUDA_VISIBLE_DEVICES may hide others). Use one of them, or device=None."
        )
    with torch.cuda.device(device):
        if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise OptionError(
                f"precision='bf16' on device={device!r}: {torch.cuda.get_device_name()} has no units for it, "
                "and would be slower than in fp32. Use precision='fp16' or 'fp32'."
            )


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
    """Device to run on, with torch set up for inference in the asked precision; not to be nested.

    Raises OptionError where this process has no such device, or the device no units for the precision; and
    DeviceMemoryError where its memory does not suffice.
    """
    import torch

    device = chosen_device(execution.device)
    kind = torch.device(device).type
    _check_sees(device, kind)
    if kind == "cpu":
        _check_processor(execution.precision)
    if kind == "cuda":
        _check_card(device, execution.precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[execution.precision]
    mixed = torch.autocast(kind, dtype=dtype, enabled=dtype is not torch.float32)
    with _run_lock, torch.inference_mode(), mixed, full_precision(kind):
        try:
            yield device
        except torch.cuda.OutOfMemoryError as error:
            # What was asked for, and what is free; then follows advice on torch's settings.
            told = ". ".join(str(error).rstrip(".").split(". ")[:3])
            raise DeviceMemoryError(
                f"device={device!r} has no memory left ({told}). End what else runs on it, or use "
                "precision='bf16' or 'fp16', a smaller model, another GPU or device='cpu'."
            ) from error
