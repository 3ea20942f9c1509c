"""One finding about the user's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Check:
    """One row of a report: what was looked at, what was found, what was expected.

    Parameters
    ----------
    variable
        The user's variable, or the modality where no variable stands for it.
    check
        What was looked at: ``"bands"``, ``"units"``, ``"offset"``…
    status
        ``"error"`` stops every call, ``"warning"`` says that something was assumed.
    found, expected
        In words.
    remedy
        What to do, with the exact call where there is one; empty when nothing is to be done.

    Examples
    --------
    >>> print(Check("dem", "units", "error", "units 'K'", "m, km, cm or ft", "Convert it to metres."))
    dem: units 'K'; expected m, km, cm or ft. Convert it to metres.
    """

    variable: str
    check: str
    status: Status
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{self.variable}: {self.found}{expected}. {self.remedy}".rstrip()
