"""`plan`: what `generate` would do."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from terramind_xr.api.generate import Call
from terramind_xr.api.mapping import extra_shape
from terramind_xr.api.options import ModelName
from terramind_xr.data import Mask, Offset
from terramind_xr.engine.cost import estimate
from terramind_xr.model.execution import Execution
from terramind_xr.model.sampling import Sampling
from terramind_xr.plans import Plan
from terramind_xr.token_inputs import Inputs


def plan(
    obj: xr.Dataset | xr.DataArray,
    outputs: str | Sequence[str],
    *,
    inputs: Inputs = None,
    model: ModelName = None,
    offset: str | Offset = "auto",
    mask: Mask = None,
    shifts: int = 1,
    overlap: int = 32,
    batch_size: int = 8,
    probabilities: bool = False,
) -> Plan:
    """Say what `generate` with the same arguments would do; nothing is read or computed.

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
    probabilities
        LULC as class probabilities.

    Returns
    -------
    Plan
        Tiles, blocks, traffic and memory.

    Raises
    ------
    InputError, OptionError
        As `generate` does.

    Examples
    --------
    >>> import terramind_xr
    >>> plan = terramind_xr.synthetic.scene(10_980).terramind.plan("LULC", model="demo")
    >>> plan.tiles, plan.blocks
    (3364, 225)
    """
    call = Call.of(
        obj, outputs, inputs=inputs, model=model, offset=offset, mask=mask, probabilities=probabilities,
        sampling=Sampling(), execution=Execution(), overlap=overlap, shifts=shifts, batch_size=batch_size,
        loads=False,
    )  # fmt: skip
    return Plan(
        model=call.kernel.recipe.name,
        inputs=call.inputs,
        outputs=call.kernel.targets,
        shape=call.scene.grid.shape,
        shifts=call.shifts,
        overlap=call.tiling.y.overlap,
        block_shape=(call.tiling.y.chunk, call.tiling.x.chunk),
        batch_size=batch_size,
        **estimate(
            call.scene.sources(call.tiling), call.kernel, call.tiling, extra_shape(call.scene), batch_size
        ),
    )
