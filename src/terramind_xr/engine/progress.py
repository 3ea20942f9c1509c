"""How far a run is, told to a person while it lasts: a bar in a terminal or a notebook, lines in a log."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from dask.callbacks import Callback

from terramind_xr.grid import Grid

_EVERY = 0.5
"""Seconds between two looks."""
_LINE_EVERY = 60.0
"""Seconds between two lines in a log."""


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Parameters
    ----------
    done, total
        Blocks.
    seconds
        Since the start.
    rate
        Blocks a second since the first one; None before the second one.
    area
        Square kilometres of all blocks; None where that cannot be told.
    waits_for
        What is at work while no block of this run is done; else nothing.
    """

    done: int
    total: int
    seconds: float
    rate: float | None = None
    area: float | None = None
    waits_for: str = ""

    def __str__(self) -> str:
        parts = [f"{self.done:,} of {self.total:,} blocks"]
        if self.waits_for:
            parts.append(f"{self.waits_for}, {_duration(self.seconds)}")
        if self.rate and self.area is not None:
            parts.append(f"{_rounded(self.rate * self.area / self.total)} km²/s")
        if self.done == self.total:
            parts.append(_duration(self.seconds))
        elif self.rate:
            parts.append(f"{_duration((self.total - self.done) / self.rate)} left")
        return " · ".join(parts)


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def square_kilometres(grid: Grid | None, scenes: int = 1) -> float | None:
    """Area of scenes on a grid; None unless a projected CRS tells it."""
    if grid is None or grid.crs is None or not grid.crs.is_projected or grid.ground_resolution is None:
        return None
    (rows, columns), (height, width) = grid.shape, grid.ground_resolution
    return scenes * rows * columns * height * width / 1e6


class Progress:
    """What a run tells of itself, while the context lasts.

    Whoever finishes blocks says so by `done`, has `counting` count the tasks of a call of the scheduler, or
    tells what has `begun` on a cluster and what has `ended` there. `waits_for` may say what is at work until
    the first one is done. A fault of the display ends the display, not the run.

    Parameters
    ----------
    title
        Of the run.
    total
        Blocks of it.
    before
        Blocks among them that an earlier run has finished.
    area
        Square kilometres of all blocks, if they are known.
    shown
        Whether anything is shown.
    """

    def __init__(
        self, title: str, total: int, *, before: int = 0, area: float | None = None, shown: bool = True
    ) -> None:
        self._title, self._total, self._before, self._area, self._shown = title, total, before, area, shown
        self._count = 0
        self._client: Any = None  # of a cluster
        self._running: set[Any] = set()  # keys there
        self.waits_for = "the first blocks run"
        # When blocks were seen to be done for the first and the last time, and how many: loading is no rate.
        self._first: tuple[float, int] | None = None
        self._last = 0.0, 0
        self._lock, self._end = threading.Lock(), threading.Event()

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        self._thread = threading.Thread(target=self._show, name="terramind-progress", daemon=True)
        if self._shown:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        if self._shown:
            self._thread.join()

    def done(self, count: int = 1) -> None:
        """Blocks are finished."""
        with self._lock:
            self._count += count

    def begun(self, client: Any, keys: Collection[Any]) -> None:
        """Tasks, of which each finishes a block, were handed to a cluster."""
        with self._lock:
            self._client = client
            self._running.update(keys)

    def ended(self, keys: Collection[Any]) -> None:
        """All of these are finished there."""
        with self._lock:
            self._running.difference_update(keys)
            self._count += len(keys)

    @contextlib.contextmanager
    def counting(self, keys: Collection[Any]) -> Iterator[set[Any]]:
        """Count the tasks with these keys, of a call of the scheduler in this context, as blocks.

        Parameters
        ----------
        keys
            Each finishes a block.

        Yields
        ------
        set
            Callbacks of dask, for a scheduler of this process.
        """
        wanted = frozenset(keys)

        def posttask(key: Any, *_: Any) -> None:
            if key in wanted:
                self.done()

        yield {Callback(posttask=posttask)._callback} if self._shown else set()

    def standing(self) -> Standing:
        """How far it is now."""
        with self._lock:
            count = self._count + _finished_on(self._client, self._running)
        now = time.monotonic()
        if count != self._last[1]:
            self._last = now, count
            self._first = self._first or self._last
        since, first = self._first or self._last
        seconds, blocks = self._last[0] - since, self._last[1] - first
        return Standing(
            self._before + count,
            self._total,
            now - self._start,
            blocks / seconds if seconds > 0 and blocks > 0 else None,
            self._area,
            "" if count else self.waits_for,
        )

    def _show(self) -> None:
        with contextlib.suppress(Exception):  # such as a closed terminal
            display = _display(self._title)
            while not self._end.wait(_EVERY):
                display.update(self.standing())
            display.close(self.standing())


def _finished_on(client: Any, keys: Collection[Any]) -> int:
    """How many of the keys a client knows to be finished; a worker that is lost takes its own back."""
    states = (client.futures.get(key) for key in keys)
    return sum(state is not None and state.status == "finished" for state in states)


class _Display(Protocol):
    def update(self, standing: Standing) -> None: ...

    def close(self, standing: Standing) -> None: ...


def _display(title: str) -> _Display:
    from rich.console import Console

    console = Console()  # of its own: a user's live display goes on
    if console.is_jupyter:
        return _Notebook(title)
    return _Terminal(title, console) if console.is_terminal else _Log(title)


class _Terminal:
    """A bar in the terminal."""

    def __init__(self, title: str, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}")
        # The streams of the process stay what they are.
        self._bar = Progress(
            *columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._task = self._bar.add_task(title, total=None, told="")
        self._bar.start()

    def update(self, standing: Standing) -> None:
        total = None if standing.waits_for else standing.total  # None: it pulses
        self._bar.update(self._task, total=total, completed=standing.done, told=str(standing), refresh=True)

    def close(self, standing: Standing) -> None:
        self._bar.update(self._task, total=standing.total, completed=standing.done, told=str(standing))
        self._bar.stop()


class _Notebook:
    """A bar below the cell, as HTML: no widgets are needed."""

    def __init__(self, title: str) -> None:
        from IPython.display import display

        self._title = title
        self._handle = display({"text/plain": title}, raw=True, display_id=True)

    def update(self, standing: Standing) -> None:
        value = "" if standing.waits_for else f" value='{standing.done}'"
        bar = f"<progress max='{standing.total}'{value}></progress>"
        told = {"text/plain": f"{self._title}: {standing}", "text/html": f"{self._title} {bar} {standing}"}
        self._handle.update(told, raw=True)

    close = update


class _Log:
    """A line a minute, beside what a program prints: nothing of a short run."""

    def __init__(self, title: str) -> None:
        self._title, self._told = title, 0.0

    def update(self, standing: Standing) -> None:
        if standing.seconds - self._told >= _LINE_EVERY:
            self._told = standing.seconds
            print(f"{self._title}: {standing}", file=sys.stderr, flush=True)

    def close(self, standing: Standing) -> None:
        if self._told:
            print(f"{self._title}: {standing}", file=sys.stderr, flush=True)
