"""torch and terratorch at work without lasting effects on the rest of the process."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What importing terratorch 1.2 sets, itself or by what it imports (cv2, pyogrio, scikit-learn, lightning …).
# A list, because what differs afterwards may as well be another thread's.
_VARIABLES = (
    "GDAL_CURL_CA_BUNDLE",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "LD_LIBRARY_PATH",
    "LIGHTLY_DID_VERSION_CHECK",
    "NO_ALBUMENTATIONS_UPDATE",
    "PROJ_CURL_CA_BUNDLE",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_CUDNN_V8_API_DISABLED",
)
_FILTERS = {
    ("always", "", "SecurityWarning"),
    ("default", "", "FileModeWarning"),
    ("default", "", "InsecurePlatformWarning"),
    ("default", "", "LightningDeprecationWarning"),
    ("ignore", "", "DependencyWarning"),
    ("ignore", "", "NotGeoreferencedWarning"),
    ("ignore", ".*FSDP.state_dict_type.*", "FutureWarning"),
    ("once", "", "SymPyDeprecationWarning"),
    ("once", "", "UserWarning"),
}
_PRECISION = "medium"


@functools.cache
def import_terratorch() -> None:
    """Import what we use of terratorch, and undo what that changes in the process.

    Environment variables, warning filters, torch's matmul precision and Python's random state get their
    former value back where the import's own still stands: other threads go on meanwhile.
    """
    _import_rich()
    environment, filters = dict(os.environ), list(warnings.filters)
    precision = {switch: switch.reading() for switch in _matmul_switches()}
    for name in ("model.generate", "model.terramind", "tokenizer.tokenizer_register"):
        importlib.import_module(f"terratorch.models.backbones.terramind.{name}")
    _undo_variables(environment, dict(os.environ))
    for added in [each for each in warnings.filters if each not in filters and _is_terratorchs(each)]:
        with contextlib.suppress(ValueError):  # another thread took it away
            warnings.filters.remove(added)  # type: ignore[attr-defined]
    now = {switch: switch.reading() for switch in precision}
    if _PRECISION in now.values():
        _give_back(precision, now)


def _import_rich() -> None:
    """Import rich, which draws a number from Python's generator; put it back where no other draw followed."""
    if "rich.style" in sys.modules:
        return
    before, replay = random.getstate(), random.Random()
    importlib.import_module("rich.style")
    replay.setstate(before)
    replay.getrandbits(24)
    if random.getstate() == replay.getstate():
        random.setstate(before)


def _undo_variables(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    for name in _VARIABLES:
        if after.get(name) == before.get(name) or os.environ.get(name) != after.get(name):
            continue
        if name in before:
            os.environ[name] = before[name]
        else:
            os.environ.pop(name, None)


def _is_terratorchs(added: Any) -> bool:
    action, message, category, _, _ = added
    return (action, message.pattern if message else "", category.__name__) in _FILTERS


def without_draws() -> Any:
    """Context in which modules that this thread builds keep unset weights: no random number is drawn.

    For models that get their weights from a file; building them is much faster, too.
    """
    import torch
    from torch.nn import init

    # The first three ask modes themselves, torch's and terratorch's other inits end in the last two.
    in_place = {
        init.uniform_,
        init.normal_,
        init.kaiming_uniform_,
        torch.Tensor.uniform_,
        torch.Tensor.normal_,
    }

    class WithoutDraws(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if func in in_place:
                return args[0] if args else kwargs["tensor"]
            return (torch.zeros if func in (torch.rand, torch.randn) else func)(*args, **kwargs)

    return WithoutDraws()


@dataclass(frozen=True)
class _Switch:
    """One of torch's global switches of precision, and its values that mean float32."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    full: tuple[Any, ...]

    def reading(self) -> Any:
        """Value; None for an old switch that torch refuses to read, because the new ones contradict it."""
        try:
            return self.read()
        except RuntimeError:
            return None


@contextlib.contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Compute products and convolutions of float32 in float32, and give the user's choice back.

    torch may compute them in TF32 or bfloat16 instead: where the user asked for it, and in cuDNN by default.
    The choice holds for the whole process, other threads included; where it is float32 already, nothing is
    touched. What another thread chooses meanwhile stays.

    Parameters
    ----------
    device
        Kind of device that computes: ``"cpu"``, ``"cuda"``, …
    """
    switches = [*_matmul_switches(), *_convolution_switches(device)]
    before = {switch: switch.reading() for switch in switches}
    for switch in switches:
        if switch.reading() not in (None, *switch.full):
            switch.write(switch.full[0])
    pinned = {switch: switch.reading() for switch in switches}
    try:
        yield
    finally:
        _give_back(before, pinned)


def _give_back(before: Mapping[_Switch, Any], ours: Mapping[_Switch, Any]) -> None:
    """Write the values of `before` where ours still stand."""
    for switch in [switch for switch in before if switch.reading() == ours[switch]]:
        if before[switch] not in (None, switch.reading()):
            switch.write(before[switch])


def _matmul_switches() -> list[_Switch]:
    """The old switch first: it sets the new ones (torch 2.9 on) as well."""
    import torch
    from torch.backends import cuda, mkldnn

    old = _Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, ("highest",))
    return [old, *_new_switches(cuda.matmul, getattr(mkldnn, "matmul", None))]


def _convolution_switches(device: str) -> list[_Switch]:
    from torch.backends import cudnn, mkldnn

    if device != "cuda":
        return _new_switches(*(getattr(mkldnn, name, None) for name in ("conv", "rnn")))
    old = _attribute(cudnn, "allow_tf32", (False,))
    return [old, *_new_switches(*(getattr(cudnn, name, None) for name in ("conv", "rnn")))]


def _new_switches(*owners: Any) -> list[_Switch]:
    name = "fp32_precision"
    return [_attribute(owner, name, ("ieee", "none")) for owner in owners if hasattr(owner, name)]


def _attribute(owner: Any, name: str, full: tuple[Any, ...]) -> _Switch:
    return _Switch(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), full)
