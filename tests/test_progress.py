"""What a run tells of itself: right numbers, in the right place, and nothing where nobody asked for it."""

from __future__ import annotations

import io
import itertools
import sys
import threading
import time
from types import SimpleNamespace

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.callbacks import Callback
from rich.console import Console
from zarr.storage import MemoryStore

import terramind_xr
from scenes import axes
from terramind_xr.api.to_zarr import to_zarr
from terramind_xr.engine import progress
from terramind_xr.engine.progress import Progress, Standing, square_kilometres
from terramind_xr.grid import Grid


def raster(shape=(400, 300), chunks=100, crs=32632, function=None):
    data = da.zeros(shape, chunks=(*(1,) * (len(shape) - 2), chunks, chunks), dtype="float32")
    data = data if function is None else data.map_blocks(function, meta=data._meta)
    dims = ("time", "y", "x")[-len(shape) :]
    array = xr.DataArray(data, dims=dims, coords=axes(*shape[-2:]), name="map")
    return array if crs is None else array.rio.write_crs(crs)


class Seen:
    """A display that remembers."""

    def __init__(self, *_):
        self.told, self.closed = [], []

    def update(self, standing):
        self.told.append(standing)

    def close(self, standing):
        self.closed.append(standing)


@pytest.fixture
def seen(monkeypatch):
    seen = Seen()
    monkeypatch.setattr(progress, "_display", lambda title: seen)
    monkeypatch.setattr(progress, "_EVERY", 0.01)
    return seen


@pytest.mark.parametrize(
    ("standing", "text"),
    [
        (
            Standing(0, 1225, 70, waits_for="the model loads"),
            "0 of 1,225 blocks · the model loads, 1 min 10 s",
        ),
        (Standing(5, 10, 7, 0.5, 320.0), "5 of 10 blocks · 16 km²/s · 10 s left"),
        (Standing(5, 10_000, 7, 0.5, 3200.0), "5 of 10,000 blocks · 0.16 km²/s · 5 h 33 min left"),
        (Standing(5, 10, 7, 0.5), "5 of 10 blocks · 10 s left"),
        (Standing(1, 10, 7, None, 320.0), "1 of 10 blocks"),
        (Standing(10, 10, 125, 0.5, 320.0), "10 of 10 blocks · 16 km²/s · 2 min 05 s"),
    ],
)
def test_what_is_told(standing, text):
    assert str(standing) == text


def test_the_time_to_load_slows_no_rate(monkeypatch):
    now = itertools.count(0.0, 10.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    bar = Progress("run", 20, before=4, area=40.0, shown=False)
    with bar:  # at 0 s
        assert bar.standing() == Standing(4, 20, 10.0, None, 40.0, "the first blocks run")
        bar.done(2)
        assert bar.standing() == Standing(6, 20, 20.0, None, 40.0)
        bar.done(5)
        assert bar.standing() == Standing(11, 20, 30.0, 0.5, 40.0)
        assert bar.standing() == Standing(11, 20, 40.0, 0.5, 40.0)  # nothing new: no slower


def test_area_needs_a_projected_crs():
    assert square_kilometres(Grid.of(raster())) == pytest.approx(12, rel=0.01)
    assert square_kilometres(Grid.of(raster()), scenes=3) == pytest.approx(36, rel=0.01)
    assert square_kilometres(Grid.of(raster(crs=None))) is None
    assert square_kilometres(Grid.of(raster(crs=4326))) is None
    assert square_kilometres(None) is None


def test_a_run_in_threads_counts_each_block_and_the_area_of_all_dates(seen):
    array = raster((3, 400, 300))
    ds = xr.Dataset({"map": array, "twice": array * 2}).assign_coords(
        time=np.array(["2024-01-01", "2024-02-01", "2024-03-01"], "M8[ns]")
    )
    to_zarr(ds, MemoryStore())
    (last,) = seen.closed
    assert (last.done, last.total) == (72, 72)
    assert last.area == pytest.approx(36, rel=0.01)


def test_while_nothing_is_done_it_says_what_is_waited_for(seen):
    go_on = threading.Event()

    def wait(block):
        assert go_on.wait(30)
        return block

    run = threading.Thread(target=to_zarr, args=(raster(function=wait), MemoryStore()))
    run.start()
    while len(seen.told) < 3:
        time.sleep(0.01)
    go_on.set()
    run.join()
    first, _, third = seen.told[:3]
    assert first.waits_for == "the first blocks run"
    assert third.seconds > first.seconds  # it does not stand still


def test_a_model_is_said_to_load(seen, monkeypatch):
    scene = terramind_xr.synthetic.scene(100)
    waits = []
    counting = Progress.counting
    monkeypatch.setattr(
        Progress, "counting", lambda self, keys: waits.append(self.waits_for) or counting(self, keys)
    )
    scene.terramind.generate("LULC", model="demo").terramind.to_zarr(MemoryStore())
    assert waits == ["the model loads, the first blocks run"]


def test_a_run_that_is_gone_on_with_counts_what_is_there(seen):
    store, broken = MemoryStore(), [(2, 1)]

    def fail(block, block_info=None):
        if block_info and block_info[0]["chunk-location"] in broken:
            raise RuntimeError("out of memory")
        return block

    array = raster(function=fail)
    with pytest.raises(RuntimeError), dask.config.set(scheduler="sync"):
        to_zarr(array, store)
    (last,) = seen.closed
    assert 0 < last.done < 12
    broken.clear()
    seen.told.clear()
    with pytest.warns(terramind_xr.TerramindWarning, match="gone on with"):
        to_zarr(array, store)
    assert (seen.closed[1].done, seen.closed[1].total) == (12, 12)
    assert all(each.done >= last.done for each in seen.told)


def test_to_raster_tells_as_well(seen, tmp_path):
    terramind_xr.to_raster(raster(), tmp_path / "map.tif")
    (last,) = seen.closed
    assert (last.done, last.total) == (12, 12)
    assert last.area == pytest.approx(12, rel=0.01)


def test_on_a_cluster_the_client_is_asked(seen):
    states = {key: SimpleNamespace(status="finished" if key < 3 else "pending") for key in range(9)}
    client = SimpleNamespace(futures=states)  # which does not know of the last ones yet
    with Progress("run", 12) as bar:
        bar.begun(client, range(7))
        bar.begun(client, range(7, 12))  # the next region, while the first is at work
        assert (bar.standing().done, bar.standing().total) == (3, 12)
        states[0].status = "lost"  # with its worker
        assert bar.standing().done == 2
        bar.ended(range(7))
        assert bar.standing().done == 7
        bar.ended(range(7, 12))
    assert seen.closed[0].done == 12


def test_a_terminal_gets_a_bar(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda: Console(file=screen, force_terminal=True, width=100))
    streams = sys.stdout, sys.stderr
    with Progress("to_zarr", 2, area=2.0) as bar:
        bar.done()
        bar.done()
        assert (sys.stdout, sys.stderr) == streams
    assert "to_zarr" in screen.getvalue()
    assert "2 of 2 blocks" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_a_notebook_gets_a_bar_in_its_place(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda told, raw: shown.append(told))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=lambda *_, **__: handle))
    monkeypatch.setattr("rich.console.Console", lambda: SimpleNamespace(is_jupyter=True))
    with Progress("to_zarr", 2) as bar:
        bar.done()
    assert shown == [
        {
            "text/plain": "to_zarr: 1 of 2 blocks",
            "text/html": "to_zarr <progress max='2' value='1'></progress> 1 of 2 blocks",
        }
    ]


def test_elsewhere_there_is_a_line_a_minute_and_none_of_a_short_run(monkeypatch, capsys):
    log = progress._Log("to_zarr")
    for seconds in range(0, 150, 10):
        log.update(Standing(seconds, 1000, seconds, 1.0))
    log.close(Standing(1000, 1000, 1000, 1.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" · ")[0] for line in err.splitlines()] == [
        "to_zarr: 60 of 1,000 blocks",
        "to_zarr: 120 of 1,000 blocks",
        "to_zarr: 1,000 of 1,000 blocks",
    ]
    to_zarr(raster(), MemoryStore())
    assert capsys.readouterr() == ("", "")


def test_nothing_is_shown_nor_started_unless_asked_for(seen):
    before = threading.active_count()
    with Progress("run", 2, shown=False) as bar, bar.counting([1, 2]) as callbacks:
        assert (callbacks, threading.active_count()) == (set(), before)
    assert seen.told == seen.closed == []


def test_a_broken_display_breaks_no_run(seen, monkeypatch):
    monkeypatch.setattr(Seen, "update", lambda *_: 1 / 0)
    assert to_zarr(raster(), MemoryStore()).shape == (400, 300)


def test_no_callback_is_left_behind(seen):
    to_zarr(raster(), MemoryStore())
    assert Callback.active == set()
