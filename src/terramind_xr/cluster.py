"""The model on the workers of a dask cluster, before they are given work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from distributed import Client, Worker, WorkerPlugin
from distributed.threadpoolexecutor import ThreadPoolExecutor  # does not keep a worker from closing

from terramind_xr.api.options import ModelName, chosen_model, execution
from terramind_xr.data import lookup
from terramind_xr.errors import OptionError, TerramindError, WeightsError
from terramind_xr.facts import modalities
from terramind_xr.model import chain
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import Recipe, find

_NAME = "terramind_xr-model"


def preload(
    client: Client,
    model: ModelName = None,
    outputs: str | Sequence[str] = (),
    *,
    inputs: str | Sequence[str] = (),
    device: str | None = None,
) -> None:
    """Load a model on every worker of a cluster, and on those that join later; return when it is there.

    A worker process loads a model when its first block asks for it, and keeps it; this has it done before.
    Workers that join, as in an adaptive cluster or after a failure, load it when they start, beside the
    first tasks that they are given. A later call replaces the model that they load.

    Parameters
    ----------
    client
        Client of the cluster.
    model
        As for `generate`; the files must be where the workers see them.
    outputs
        Modalities that are to be generated: their tokenizers are loaded, too. None for `embed`.
    inputs
        Modalities that are to be read; only LULC and NDVI need anything to be loaded.
    device
        As for `generate`.

    Raises
    ------
    OptionError
        An option cannot be used, or the workers lack this package.
    WeightsError
        Weights are missing, or a worker cannot load them; the message names the worker. No worker that joins
        will load the model then.

    Examples
    --------
    >>> import terramind_xr
    >>> from distributed import Client
    >>> with Client(processes=False, n_workers=1, dashboard_address=None) as client:
    ...     terramind_xr.preload(client, "demo", "LULC")
    """
    if not isinstance(client, Client) or client.asynchronous:
        raise OptionError(
            f"client is {client!r}; expected a distributed.Client that is not asynchronous, such as "
            "Client(cluster)."
        )
    generated, read = ([lookup(name).name for name in _listed(names)] for names in (outputs, inputs))
    maps = {name for name in read if modalities[name].raw_key is None}
    recipe = find(chosen_model(model), {*generated, *maps})
    try:
        client.register_plugin(_Resident(recipe, execution(device)))
        found = client.run(_loaded, on_error="return")
    except ImportError as error:
        client.unregister_worker_plugin(_NAME)
        raise OptionError(
            f"The workers cannot import what the client has ({error}). Install terramind_xr where they run."
        ) from error
    failed = [(worker, fault) for worker, fault in found.items() if fault is not None]
    if failed:
        client.unregister_worker_plugin(_NAME)
        worker, fault = failed[0]
        is_ours = isinstance(fault, TerramindError)
        told = str(fault) if is_ours else f"{type(fault).__name__}: {fault}"
        message = f"{len(failed)} of {len(found)} workers cannot load the model. {worker}: {told}"
        raise (type(fault) if is_ours else WeightsError)(message) from fault


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


class _Resident(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Loads a model when a worker starts.

    Parameters
    ----------
    recipe
        Which weights.
    execution
        Where the model runs.
    """

    name = _NAME

    def __init__(self, recipe: Recipe, execution: Execution) -> None:
        self.recipe, self.execution = recipe, execution

    def setup(self, worker: Worker) -> None:
        """Begin to load: a worker that started late or too slowly would be taken for dead."""
        thread = ThreadPoolExecutor(1, thread_name_prefix=_NAME)
        self.loading: Future[None] = thread.submit(chain.load, self.recipe, self.execution)
        thread.shutdown(wait=False)


async def _loaded(dask_worker: Worker) -> Any:
    """Wait for the model of a worker."""
    await asyncio.wrap_future(dask_worker.plugins[_NAME].loading)
