"""Converted networks at work: compiled by OpenVINO once in each process, on the processor.

A tile runs by itself: its numbers cannot depend on the batch that it comes in. Tiles run side by side, as the
two hundred rows of one are too few to keep many threads at work.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.errors import OptionError
from terramind_xr.model.exported import Converted

if TYPE_CHECKING:
    import torch

_lock = threading.RLock()

_SIDE_BY_SIDE = 8
"""Most tiles at a time: a batch as it is by default. Further threads are shared out among them."""


def import_openvino(*packages: str) -> Any:
    """OpenVINO, and further packages of the extra, without their telemetry.

    Each import and conversion would report to a server in the web, and a computation is to need no network.
    Where the user has imported the telemetry before, that is left as it is.

    Raises
    ------
    OptionError
        If one is not installed.
    """
    telemetry = "openvino_telemetry"
    with _lock:
        silenced = telemetry not in sys.modules
        if silenced:
            sys.modules[telemetry] = None  # type: ignore[assignment]  # importing it fails, and a stub serves
        try:
            openvino, *_ = [importlib.import_module(name) for name in ("openvino", *packages)]
            return openvino
        except ImportError as error:
            raise OptionError(
                f"An exported model needs {error.name or 'openvino'}, which is not installed for the process "
                "that asked for it. Install it there, on every worker: pip install terramind_xr[openvino]"
            ) from error
        finally:
            if silenced:
                sys.modules.pop(telemetry, None)


class Network:
    """A compiled network: torch tensors in and out, as the one that it stands for.

    Parameters
    ----------
    converted
        Which files, and in what precision.
    threads
        Of the processor.
    """

    def __init__(self, converted: Converted, threads: int) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # weights at work would change with the file
        model = core.read_model(converted.graph.verified_path(), converted.constants.verified_path())
        streams = min(threads, _SIDE_BY_SIDE)
        compiled = core.compile_model(
            model,
            "CPU",
            {
                # By default OpenVINO chooses these by the machine, and pins its threads to cores.
                "INFERENCE_PRECISION_HINT": "bf16" if converted.precision == "bf16" else "f32",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "ENABLE_CPU_PINNING": False,
            },
        )
        # Not its AsyncInferQueue, which never gets back a request that could not be started.
        self._requests = [compiled.create_infer_request() for _ in range(streams)]

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Output (tile, …) of inputs (tile, …); one without tiles is the same for all."""
        import torch

        arrays = [each.detach().cpu().numpy() for each in inputs]
        tiles, side_by_side = next(len(array) for array in arrays if array.ndim), len(self._requests)
        made: NDArray[Any] | None = None  # once the first tile has told its shape
        try:
            for tile in range(tiles + side_by_side):
                request, before = self._requests[tile % side_by_side], tile - side_by_side
                if 0 <= before < tiles:
                    request.wait()
                    found = request.get_output_tensor().data[0]
                    made = np.empty((tiles, *found.shape), found.dtype) if made is None else made
                    made[before] = found
                if tile < tiles:
                    request.start_async(
                        [array[tile : tile + 1] if array.ndim else array[None] for array in arrays]
                    )
        finally:  # after an interrupt, none may end in the next call
            for request in self._requests:
                request.wait()
        device = next(each.device for each in inputs if each.ndim)
        return torch.from_numpy(made).to(device)


@functools.lru_cache(maxsize=8)
def _load(converted: Converted, threads: int) -> Network:
    return Network(converted, threads)


def network(converted: Converted) -> Network:
    """The compiled network on as many threads as torch has, loaded once in this process.

    Raises
    ------
    OptionError
        If OpenVINO is not installed here.
    WeightsError
        If a file is missing, or was replaced.
    """
    import torch

    with _lock:
        return _load(converted, torch.get_num_threads())
