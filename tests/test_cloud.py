"""Object stores and Icechunk; skipped without moto, s3fs or icechunk, which `make test-all` installs."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path
from urllib.request import Request, urlopen

import dask
import numpy as np
import pytest
import xarray as xr
from zarr.storage import StorePath

from terramind_xr.errors import OptionError
from test_resume import RAN, break_off, files, result, whole, write  # noqa: F401 (a fixture)

PATHS = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"

# S3, by a server that plays it.


@pytest.fixture
def bucket(monkeypatch):
    """A file system of S3 with an empty bucket, called maps."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    system.mkdir("maps")
    yield system
    # Servers of one process share what they hold.
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    server.stop()


def objects(system, prefix):
    """All objects below a prefix, by their keys."""
    return {key.removeprefix(f"{prefix}/"): system.cat_file(key) for key in system.find(prefix)}


def test_a_broken_run_on_s3_is_gone_on_with(bucket, whole):  # noqa: F811
    break_off(result(), "s3://maps/map.zarr")
    left = objects(bucket, "maps/map.zarr")
    assert "zarr.json" not in left
    assert sum(key.startswith(".terramind/done/") for key in left) >= 4
    RAN.clear()
    stored = write(result(), "s3://maps/map.zarr")
    assert 0 < len(RAN) < 20
    assert objects(bucket, "maps/map.zarr") == whole
    np.testing.assert_array_equal(stored.fillna(-1), result().compute(scheduler="sync"))
    with pytest.raises(OptionError, match="exists already"):
        write(result(), "s3://maps/map.zarr")
    with pytest.raises(OptionError, match="'s3://nowhere/map.zarr' cannot be written.*bucket"):
        write(result(), "s3://nowhere/map.zarr")


KILLED = """
import time
from test_resume import Counting, result, write
run = Counting.run

def slowly(self, *args):
    time.sleep(0.05)
    return run(self, *args)

Counting.run = slowly
write(result(), "s3://maps/map.zarr")
"""


def test_a_process_that_is_killed_while_it_writes_to_s3_leaves_a_run_to_go_on_with(bucket, whole):  # noqa: F811
    process = subprocess.Popen([sys.executable, "-c", PATHS + KILLED])
    try:
        until = time.monotonic() + 100
        while len(bucket.find("maps/map.zarr/.terramind/done")) < 5 and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert "zarr.json" not in objects(bucket, "maps/map.zarr")
    write(result(), "s3://maps/map.zarr")
    assert objects(bucket, "maps/map.zarr") == whole


# Icechunk.


@pytest.fixture
def repository():
    icechunk = pytest.importorskip("icechunk")
    return icechunk.Repository.create(icechunk.in_memory_storage())


def test_a_run_is_one_commit_of_icechunk(repository):
    session = repository.writable_session("main")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        stored = write(result(), session.store)
    expected = result().compute(scheduler="sync")
    np.testing.assert_array_equal(stored.fillna(-1), expected)
    session.commit("a map")
    store = repository.readonly_session("main").store
    committed = xr.open_zarr(store, decode_coords="all", consolidated=False)["map"]
    np.testing.assert_array_equal(committed.fillna(-1), expected)
    with pytest.raises(OptionError, match="exists already"):
        write(result(), repository.writable_session("main").store)
    with pytest.raises(OptionError, match="cannot be written.*read-only"):
        write(result(), store)
    session = repository.writable_session("main")
    write(result(), StorePath(session.store, "another"))
    session.commit("another map, in a group")


def test_of_a_broken_run_nothing_is_committed_and_it_is_not_gone_on_with(repository, tmp_path):
    session = repository.writable_session("main")
    break_off(result(), session.store)
    with pytest.raises(OptionError, match=r"holds data.*session\.discard_changes\(\)"):
        write(result(), session.store)
    session.discard_changes()
    write(result(), session.store)
    session.discard_changes()
    # What can break is written elsewhere first.
    break_off(result(), tmp_path / "map.zarr")
    write(write(result(), tmp_path / "map.zarr"), session.store)
    session.commit("a map")


def test_sessions_of_icechunk_are_for_one_process(repository):
    session = repository.writable_session("main")
    with dask.config.set(scheduler="processes"), pytest.raises(OptionError, match="one process.*threads"):
        write(result(), session.store)
    assert not session.has_uncommitted_changes
