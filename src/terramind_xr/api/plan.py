"""`plan`: what `generate` would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import xarray as xr

from terramind_xr.api.calibration import Calibration
from terramind_xr.api.generate import Call, chosen_sampling
from terramind_xr.api.memory import bytes_of, fitted
from terramind_xr.api.options import ModelName, execution
from terramind_xr.data import Mask, Offset
from terramind_xr.model.footprint import LIBRARIES
from terramind_xr.model.sampling import Decoding, Solver
from terramind_xr.options import Precision, check_memory_limit, get_options
from terramind_xr.plans import Plan
from terramind_xr.token_inputs import Inputs


def plan(
    obj: xr.Dataset | xr.DataArray,
    outputs: str | Sequence[str],
    *,
    inputs: Inputs = None,
    model: ModelName = None,
    seed: int = 0,
    offset: str | Offset = "auto",
    mask: Mask = None,
    decoding: Decoding = "argmax",
    shifts: int = 1,
    decoding_steps: int = 1,
    diffusion_steps: int = 10,
    solver: Solver = "ddim",
    temperature: float | None = None,
    top_p: float = 0.8,
    top_k: int = 0,
    samples: int = 1,
    overlap: int = 32,
    batch_size: int = 8,
    device: str | None = None,
    precision: Precision | None = None,
    probabilities: bool = False,
    clamp: Literal["upstream"] | None = "upstream",
    memory_limit: int | str | None = None,
    calibrate: bool = False,
) -> Plan:
    """Say what `generate` with the same arguments would do; nothing is read or computed.

    Memory is an estimate of what each process takes at most, libraries and model included: the workers of
    dask's scheduler in force, or this process with its threads.

    Parameters
    ----------
    obj
        As for `generate`, and so are the others.
    outputs
        Modalities to generate.
    inputs
        Modalities to use.
    model
        Name or folder; no weights are needed.
    offset
        Radiometric offset within Sentinel-2 numbers.
    mask
        Pixels that are not to be used, as for `generate`.
    shifts
        Passes over the scene.
    overlap
        Pixels that neighbouring tiles share.
    batch_size
        Tiles to one run of the model.
    seed
        Of all random numbers. This and what follows of drawing and decoding counts for the time only.
    decoding
        What is decoded: ``"argmax"`` or ``"expected"``.
    decoding_steps, samples
        1 for now.
    diffusion_steps
        Steps of the outputs with a diffusion decoder.
    solver
        How they go.
    temperature
        0 or None takes the most probable tokens; above, they are drawn.
    top_p
        Draw from the fewest tokens that hold this share of the probability.
    top_k
        Draw from so many most probable tokens at most.
    clamp
        Whether diffusion outputs are kept within one standard deviation, as upstream.
    device
        torch device.
    precision
        Of the model; it counts for the time only.
    probabilities
        LULC as class probabilities.
    memory_limit
        Bytes that each process may take: a number, ``"4GiB"``, or ``"auto"``, what dask lets its workers take
        before it holds them back (80 % of their memory); by default the option ``memory_limit``. Blocks and
        batches are made smaller until they fit. `generate` obeys the option:
        ``set_options(memory_limit="4GiB")``.
    calibrate
        Load the model and run a batch of it on synthetic tiles, here, to estimate time and, where the system
        tells it, energy.

    Returns
    -------
    Plan
        Tiles, blocks, traffic, memory, and time where it was measured.

    Raises
    ------
    InputError, OptionError
        As `generate` does; and for a memory limit that cannot be met, with what could.
    WeightsError
        With `calibrate`, if weights are missing.

    Examples
    --------
    >>> import terramind_xr
    >>> plan = terramind_xr.synthetic.scene(10_980).terramind.plan("LULC", model="demo")
    >>> plan.tiles, plan.blocks
    (3364, 225)
    >>> scene = terramind_xr.synthetic.scene(2000)
    >>> scene.terramind.plan("LULC", model="demo", memory_limit="32GiB").block_shape
    (768, 768)
    """
    limit = get_options().memory_limit if memory_limit is None else memory_limit
    check_memory_limit(limit)
    sampling = chosen_sampling(
        seed=seed, decoding=decoding, decoding_steps=decoding_steps, diffusion_steps=diffusion_steps,
        solver=solver, temperature=temperature, top_p=top_p, top_k=top_k, samples=samples, clamp=clamp,
    )  # fmt: skip
    call = Call.of(
        obj, outputs, inputs=inputs, model=model, offset=offset, mask=mask, probabilities=probabilities,
        sampling=sampling, execution=execution(device, precision), overlap=overlap, shifts=shifts,
        batch_size=batch_size, loads=calibrate,
    )  # fmt: skip
    cut = fitted(call.scene, call.kernel, call.tiling, batch_size, limit)
    measured = Calibration.of(call.kernel, min(cut.batch_size, cut.tiling.most_tiles)) if calibrate else None
    made = Plan(
        model=call.kernel.recipe.name,
        inputs=call.inputs,
        outputs=call.kernel.targets,
        shape=call.scene.grid.shape,
        device=cut.device,
        processes=cut.workers.processes,
        threads=cut.workers.threads,
        shifts=call.shifts,
        overlap=cut.tiling.y.overlap,
        block_shape=(cut.tiling.y.chunk, cut.tiling.x.chunk),
        batch_size=cut.batch_size,
        **dict[str, Any](cut.cost),
        library_memory=LIBRARIES,
        model_memory=cut.model_memory,
        batch_memory=cut.batch_memory,
        peak_memory=cut.peak_memory,
        device_memory=cut.device_memory,
        memory_limit=None if limit is None else bytes_of(limit, cut.workers),
    )
    return replace(made, **measured.of_tiles(made.tiles)) if measured else made
