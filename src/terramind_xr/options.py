"""Options that hold for a whole session, as a context or for good."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from dask.utils import parse_bytes

from terramind_xr.errors import OptionError

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Options:
    """Values that calls take where they are given none.

    Parameters
    ----------
    model
        Name of a model, or a folder with its files.
    device
        torch device; None takes a GPU where there is one.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    block
        Tiles along each side of a block, the unit that one task computes.
    check_values
        Whether each block checks that its numbers can be what they are taken for.
    memory_limit
        Bytes of host memory that a process may take, as a number or a text such as ``"4GiB"``; ``"auto"``
        is that of dask's workers, or of this machine. Blocks and batches are then as small as it asks for.
    """

    model: str = "terramind_v1_base"
    device: str | None = None
    precision: Precision = "fp32"
    block: int = 4
    check_values: bool = True
    memory_limit: int | str | None = None

    def __post_init__(self) -> None:
        check_device(self.device)
        check_precision(self.precision)
        if not isinstance(self.block, int) or self.block < 1:
            raise OptionError(
                f"block={self.block!r} cannot be used: it must be a whole number of tiles >= 1."
            )
        if not isinstance(self.check_values, bool):
            raise OptionError(f"check_values={self.check_values!r} cannot be used: it is True or False.")
        check_memory_limit(self.memory_limit)


def check_device(device: str | None) -> None:
    """Raise OptionError for what cannot be a torch device; whether it is there shows where it runs."""
    if device is not None and not re.fullmatch(r"cpu|mps|(cuda|xpu)(:\d+)?", str(device)):
        raise OptionError(f"device={device!r} is unknown: use None, 'cpu', 'cuda', 'cuda:0', 'xpu' or 'mps'.")


def check_precision(precision: str) -> None:
    """Raise OptionError for an unknown precision."""
    if precision not in get_args(Precision):
        raise OptionError(
            f"precision={precision!r} is unknown: use {', '.join(map(repr, get_args(Precision)))}."
        )


def check_memory_limit(limit: int | str | None) -> None:
    """Raise OptionError for what is no number of bytes."""
    if limit in (None, "auto"):
        return
    try:
        is_told = isinstance(limit, int | str) and not isinstance(limit, bool)
        size = parse_bytes(limit) if is_told else None
    except ValueError:
        size = None
    if size is None or size < 1:
        raise OptionError(
            f"memory_limit={limit!r} cannot be used: expected bytes, such as 4_000_000_000 or '4GiB', "
            "or 'auto'."
        )


# Whole settings are never stored, only what was set: a `with` block in one thread and a call for good in
# another then take nothing from each other.
_for_good: list[set_options] = []
_in_blocks: ContextVar[tuple[set_options, ...]] = ContextVar("terramind_xr_options", default=())


def get_options() -> Options:
    """Return the options in force here: those of open ``with`` blocks, then those set for good."""
    given: dict[str, Any] = {}
    for each in (*_for_good, *_in_blocks.get()):
        given |= each.options
    return Options(**given)


class set_options:
    """Set options for a ``with`` block, or for good.

    A ``with`` block holds in the thread (and the asynchronous task) that opened it, and ends there. A plain
    call holds for good and in the whole process, in threads started earlier and later alike; where a block
    is open, the block's options come first until it ends.

    Parameters
    ----------
    **options
        Fields of `Options`: ``model``, ``device``, ``precision``, ``block``, ``check_values``,
        ``memory_limit``. A lazy result keeps those that were in force when it was built: dask's threads and
        workers look none up.

    Raises
    ------
    OptionError
        For unknown options and impossible values.

    Examples
    --------
    >>> import terramind_xr
    >>> with terramind_xr.set_options(model="demo", block=2):
    ...     lulc = terramind_xr.synthetic.scene(500).terramind.generate("LULC")
    >>> lulc.chunksizes["y"]
    (384, 116)
    """

    def __init__(self, **options: Any) -> None:
        unknown = sorted(set(options) - {field.name for field in fields(Options)})
        if unknown:
            known = ", ".join(field.name for field in fields(Options))
            raise OptionError(f"There is no option {', '.join(unknown)}; there are {known}.")
        replace(get_options(), **options)  # raises for impossible values
        self.options = options
        _for_good.append(self)

    def __enter__(self) -> Options:
        # It was not for good: Python calls this only now.
        if self in _for_good:
            _for_good.remove(self)
        _in_blocks.set((*_in_blocks.get(), self))
        return get_options()

    def __exit__(self, *error: object) -> None:
        _in_blocks.set(_in_blocks.get()[:-1])
