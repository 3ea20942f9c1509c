"""The outcome of the checks: one table, errors first."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import Any

from terramind_xr.data.check import Check
from terramind_xr.errors import InputError

_RANK = {"error": 0, "warning": 1, "ok": 2}
_COLORS = {"error": "#c4281b", "warning": "#b7791f", "ok": "#2f855a"}


@dataclass(frozen=True, repr=False)
class Report:
    """What was checked, what was found, and the remedies.

    Printed, it is a list with errors first; in a notebook, a table.

    Parameters
    ----------
    checks
        One row for each check.

    Examples
    --------
    >>> report = Report((Check("dem", "units.unknown", "error", "units 'K'", "m", "Convert it."),))
    >>> report
    Report: 1 error, 0 warnings
      error   dem  units.unknown  units 'K'; expected m
                                  → Convert it.
    >>> report.ok
    False
    """

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no errors; warnings are allowed."""
        return not self.errors

    @property
    def errors(self) -> tuple[Check, ...]:
        """Checks that stop every call."""
        return tuple(check for check in self.checks if check.status == "error")

    @property
    def warnings(self) -> tuple[Check, ...]:
        """Checks where something was assumed."""
        return tuple(check for check in self.checks if check.status == "warning")

    def raise_for_errors(self) -> None:
        """Raise one InputError with every fault and its remedy; nothing when `ok`."""
        if self.errors:
            raise InputError([str(check) for check in self.errors], [check.kind for check in self.errors])

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and strings, errors first: ``{"ok": …, "checks": [{"variable": …, …}, …]}``."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self._sorted()]}

    def _sorted(self) -> list[Check]:
        return sorted(self.checks, key=lambda check: _RANK[check.status])

    @property
    def _title(self) -> str:
        counts = (("error", len(self.errors)), ("warning", len(self.warnings)))
        return "Report: " + ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts)

    def __repr__(self) -> str:
        lines = [self._title]
        rows = self._sorted()
        names = [_shortened(check.variable) for check in rows]
        name_width = max(map(len, names), default=0)
        kind_width = max((len(check.kind) for check in rows), default=0)
        for name, check in zip(names, rows, strict=True):
            head = f"  {check.status:<7} {name:<{name_width}}  {check.kind:<{kind_width}}  "
            expected = f"; expected {check.expected}" if check.expected else ""
            lines.append(f"{head}{check.found}{expected}".rstrip())
            if check.remedy:
                lines.append(f"{'':<{len(head)}}→ {check.remedy}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        columns = ("status", "variable", "kind", "found", "expected", "remedy")
        left = "style='text-align:left'"
        header = "".join(f"<th {left}>{column}</th>" for column in columns)
        body = []
        for check in self._sorted():
            row = asdict(check)
            cells = "".join(f"<td {left}>{html.escape(row[column])}</td>" for column in columns)
            body.append(f"<tr style='border-left:4px solid {_COLORS[check.status]}'>{cells}</tr>")
        caption = f"<caption {left}>{html.escape(self._title)}</caption>"
        return f"<table>{caption}<thead><tr>{header}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _shortened(text: str, width: int = 24) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
