"""One finding about the user's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from terramind_xr.errors import InputError

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Check:
    """One row of a report: what was looked at, what was found, what was expected.

    Parameters
    ----------
    variable
        The user's variable, or the modality where no variable stands for it.
    kind
        What was looked at (``"bands"``, ``"units"``, ``"offset"``…), and of a fault what it is
        (``"bands.missing"``). Kinds stay the same from release to release; the documentation has an entry
        for each, under *Faults and remedies*.
    status
        ``"error"`` stops every call, ``"warning"`` says that something was assumed.
    found, expected
        In words.
    remedy
        What to do, with the exact call where there is one; empty when nothing is to be done.

    Examples
    --------
    >>> check = Check("dem", "units.unknown", "error", "units 'K'", "m, km, cm or ft", "Convert it.")
    >>> print(check)
    dem: units 'K'; expected m, km, cm or ft. Convert it. [units.unknown]
    >>> check.check
    'units'
    """

    variable: str
    kind: str
    status: Status
    found: str
    expected: str
    remedy: str = ""

    @property
    def check(self) -> str:
        """What was looked at: the first word of the kind."""
        return self.kind.partition(".")[0]

    def __str__(self) -> str:
        expected = f"; expected {self.expected}" if self.expected else ""
        return " ".join(
            filter(None, (f"{self.variable}: {self.found}{expected}.", self.remedy, f"[{self.kind}]"))
        )

    def as_error(self) -> InputError:
        """What to raise of it alone; several come together in a report."""
        return InputError(str(self), [self.kind])
