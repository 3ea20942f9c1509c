"""The one family of errors and warnings, in the user's words.

Every message names the variable, what was found, what was expected and the remedy.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = f"{Path(__file__).parent}{os.sep}"


class TerramindError(Exception):
    """Base of every error that terramind_xr raises on purpose.

    Examples
    --------
    >>> import terramind_xr
    >>> try:
    ...     terramind_xr.synthetic.scene(0)
    ... except terramind_xr.TerramindError as error:
    ...     print(type(error).__name__)
    OptionError
    """


class InputError(TerramindError):
    """The data cannot be used as it is: bands, units, grid, dtype or metadata.

    Parameters
    ----------
    faults
        One sentence or more for each fault; all faults of one input come together.
    kinds
        What each fault is, by its name in the documentation (``"bands.missing"``), where it has one.
    """

    def __init__(self, faults: str | Sequence[str], kinds: Sequence[str] = ()) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        self.kinds: tuple[str, ...] = tuple(kinds)
        if len(self.faults) == 1:
            message = self.faults[0]
        else:
            listed = "\n".join(f"  {number}. {fault}" for number, fault in enumerate(self.faults, 1))
            message = f"{len(self.faults)} faults in the input:\n{listed}"
        super().__init__(message)

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[str, ...], tuple[str, ...]]]:
        return type(self), (self.faults, self.kinds)


class OptionError(TerramindError):
    """An option has a value that cannot be used, or contradicts another one."""


class WeightsError(TerramindError):
    """Model weights are missing, incomplete, damaged or of another model."""


class DeviceMemoryError(TerramindError):
    """The memory of the device, a GPU, holds no model or not even one tile."""


class TerramindWarning(UserWarning):
    """Something was assumed, or is worth a look; the result is still what it says."""


def warn(message: str) -> None:
    """Warn with a `TerramindWarning` at the line outside this package that called into it.

    A number of frames would differ between a function and the method of the accessor that calls it.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, TerramindWarning, stacklevel=level)
