"""Public functions: validate, convert, plan, graph, label. The accessor re-attaches them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from terramind_xr.data import Mask, Offset, lookup
from terramind_xr.engine import Output, Source, Tiling, map_tiles
from terramind_xr.engine.cost import estimate
from terramind_xr.errors import OptionError, warn
from terramind_xr.kernels import GenerateKernel
from terramind_xr.modalities import modalities
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import describe, find, readable, writable
from terramind_xr.model.sampling import Decoding, Sampling, is_whole
from terramind_xr.options import Precision, get_options
from terramind_xr.plan import Plan
from terramind_xr.results import label, provenance
from terramind_xr.scene import Inputs, Scene

ModelName = str | os.PathLike[str] | None


def generate(
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
) -> xr.DataArray | xr.Dataset:
    """Generate modalities from those that the object holds.

    Lazy for lazy data: nothing is read and no weight is loaded before the result is computed. The scene
    may be of any size; it is tiled, and the tiles are blended without seams. How the data is chunked does
    not change the result.

    Parameters
    ----------
    obj
        Holds the input modalities on one grid of 10 m: a variable with a band dimension for each
        (``ds["S2L2A"]``), or a variable for each band (``ds["B02"]``). Further dimensions, such as time,
        are carried through.
    outputs
        One modality or several: S2L2A, S1GRD, S1RTC, DEM, LULC, NDVI. An earlier one conditions a later one.
    inputs
        Modalities to use, or ``{"S2L2A": {"B02": "my_variable", …}}`` where names are ambiguous. By default
        every pixel modality in the object; LULC and NDVI only when named.
    model
        Name from `models`, or a folder with the files; by default the option ``model``.
    seed
        Of all random numbers, which belong to places of the scene.
    offset
        Radiometric offset within Sentinel-2 numbers: ``"auto"`` from the metadata (of each date by itself),
        or 0 or 1000, or a DataArray of them along time. Generated Sentinel-2 numbers carry the offset of
        the S2L2A input, else of the S2L1C one; 0 where dates differ.
    mask
        True where pixels are not to be used, e.g. clouds: one array for all inputs, or one by input. It is
        matched by its coordinates; a mask without time holds for every date.
    decoding
        ``"argmax"`` decodes the most probable (or drawn) tokens, as upstream; ``"expected"`` the mean over
        all tokens by their probability, which draws nothing and shows the patches less.
    shifts
        Passes over the scene whose predictions are averaged: 1, 2 or 4. The tiles of further passes start
        half a patch further, so that patches show less; each takes the time of the first.
    decoding_steps
        Steps in which the tokens of an output are decoded; 1 for now.
    diffusion_steps
        DDIM steps of the outputs with a diffusion decoder (all but LULC).
    temperature
        0 or None takes the most probable tokens, the more accurate choice for maps; above, tokens are drawn.
    top_p
        Draw from the fewest tokens that hold this share of the probability; 0 draws from all.
    top_k
        Draw from so many most probable tokens at most; 0 draws from all.
    samples
        Number of samples; 1 for now.
    overlap
        Pixels that neighbouring tiles share: a multiple of 16 up to 112.
    batch_size
        Tiles to one run of the model.
    device
        torch device, e.g. ``"cuda"``; by default the option ``device``.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``; by default the option ``precision``.
    probabilities
        LULC as class probabilities (``lulc_class``, y, x) instead of codes.
    clamp
        ``"upstream"`` keeps diffusion outputs within one standard deviation of the mean, as terratorch
        does; None does not.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        One output gives a DataArray (time, …, [band,] y, x) named after it, several a Dataset. Physical
        units: DN, dB, m, or the index; float32 with NaN for no data. LULC is uint8 codes with 0 for no
        data. Coordinates and CRS are the input's. Attributes say how it was made.

    Raises
    ------
    InputError
        With every fault of the data and its remedy.
    OptionError
        For options that are impossible or contradict each other.
    WeightsError
        If weights are missing.

    Examples
    --------
    >>> import terramind_xr
    >>> ds = terramind_xr.synthetic.scene(256)
    >>> lulc = ds.terramind.generate("LULC", model="demo")
    >>> lulc.dims, lulc.dtype, lulc.rio.crs.to_epsg() == ds.rio.crs.to_epsg()
    (('y', 'x'), dtype('uint8'), True)
    """
    _refuse_what_is_not_there_yet(decoding_steps=decoding_steps, samples=samples)
    options = get_options()
    sampling = Sampling(
        seed=seed,
        temperature=0.0 if temperature is None else temperature,
        top_p=top_p,
        top_k=top_k,
        diffusion_steps=diffusion_steps,
        clamp=clamp,
        decoding=decoding,
    )
    execution = Execution(
        device=options.device if device is None else device,
        precision=precision or options.precision,
    )
    call = _prepare(
        obj, outputs, inputs=inputs, model=model, offset=offset, mask=mask, probabilities=probabilities,
        sampling=sampling, execution=execution, overlap=overlap, shifts=shifts, batch_size=batch_size,
    )  # fmt: skip
    arrays = map_tiles(
        call.sources, call.kernel, call.tiling, extra=call.scene.extra_shape, batch_size=call.batch_size
    )
    if not call.scene.is_lazy:
        # The data is in this process already: a cluster's client is not asked.
        arrays = dask.compute(*arrays, scheduler="threads")
        _warn_if_empty(arrays)
    results = {
        output.name: call.label(output, array)
        for output, array in zip(call.kernel.outputs, arrays, strict=True)
    }
    return results[outputs] if isinstance(outputs, str) else xr.Dataset(results)


def _warn_if_empty(arrays: Sequence[NDArray[Any]]) -> None:
    """Say so when a computed scene holds nothing but nodata."""
    nothing = all(not array.any() if array.dtype.kind == "u" else np.isnan(array).all() for array in arrays)
    if nothing:
        warn(
            "The scene holds no valid pixel (all are nodata, NaN or masked), so the result is all nodata. "
            "Look with terramind_xr.validate, and at the mask."
        )


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
        Pixels that are not to be used.
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
    call = _prepare(
        obj, outputs, inputs=inputs, model=model, offset=offset, mask=mask, probabilities=probabilities,
        sampling=Sampling(), execution=Execution(), overlap=overlap, shifts=shifts, batch_size=batch_size,
        loads=False,
    )  # fmt: skip
    return Plan(
        model=call.kernel.recipe.name,
        inputs=tuple(call.scene.inputs),
        outputs=call.outputs,
        shape=call.scene.shape,
        shifts=call.shifts,
        overlap=call.tiling.y.overlap,
        block_shape=(call.tiling.y.chunk, call.tiling.x.chunk),
        batch_size=batch_size,
        **estimate(call.sources, call.kernel, call.tiling, call.scene.extra_shape, batch_size),
    )


@dataclass(frozen=True)
class _Call:
    """A checked call: all that graph and labels need."""

    scene: Scene
    outputs: tuple[str, ...]
    kernel: GenerateKernel
    sources: list[Source]
    tiling: Tiling
    shifts: int
    batch_size: int

    def label(self, output: Output, array: da.Array) -> xr.DataArray:
        given = self.scene.given
        attrs = provenance(
            self.kernel.recipe,
            self.kernel.sampling,
            self.kernel.execution,
            inputs=" ".join(self.scene.inputs),
            outputs=" ".join(self.outputs),
            shifts=self.shifts,
            overlap=self.tiling.y.overlap,
            batch_size=self.batch_size,
            block=self.tiling.y.block,
            **self.scene.provenance(),
        )
        if not all(each.check for each in self.kernel.inputs):
            attrs["terramind_check_values"] = "off"
        return label(
            output,
            self.scene.as_given(array),
            given.data,
            spatial=(given.y_dim, given.x_dim),
            extra=self.scene.extra,
            attrs=attrs,
        )


def _prepare(
    obj: xr.Dataset | xr.DataArray,
    outputs: str | Sequence[str],
    *,
    inputs: Inputs,
    model: ModelName,
    offset: str | Offset,
    mask: Mask,
    probabilities: bool,
    sampling: Sampling,
    execution: Execution,
    overlap: int,
    shifts: int,
    batch_size: int,
    loads: bool = True,
) -> _Call:
    """Check everything that a call says, on metadata alone, and put it in order.

    Without `loads`, the weights need not be there.
    """
    targets = _targets(outputs, inputs)
    if not is_whole(batch_size) or batch_size < 1:
        raise OptionError(f"batch_size={batch_size!r} cannot be used: expected a whole number of tiles >= 1.")
    if probabilities and "LULC" not in targets:
        raise OptionError(
            f"probabilities=True is for LULC, but the outputs are {', '.join(targets)}. Leave it out."
        )
    model = model if model is not None else get_options().model
    if not isinstance(model, str | os.PathLike):
        raise OptionError(f"model={model!r} cannot be used: expected a name from models(), or a folder.")
    scene = Scene.of(obj, inputs, exclude=targets, offset=offset, mask=mask)
    tiling = Tiling.of(scene.shape, overlap=overlap, block=get_options().block, shifts=shifts)
    _refuse_unknown(model, scene, targets)
    tokenized = {*targets, *(name for name in scene.inputs if modalities[name].raw_key is None)}
    recipe = find(model, tokenized) if loads else describe(model)
    kernel = GenerateKernel(
        recipe=recipe,
        inputs=scene.kernel_inputs(check=get_options().check_values),
        targets=targets,
        sampling=sampling,
        execution=execution,
        probabilities=probabilities,
        offset=_offset_of_outputs(scene),
    )
    return _Call(scene, targets, kernel, scene.sources(tiling), tiling, int(shifts), batch_size)


def _refuse_unknown(model: str | os.PathLike[str], scene: Scene, targets: tuple[str, ...]) -> None:
    """Raise OptionError for inputs that the model cannot read, and outputs that it cannot write."""
    reads, writes = readable(model), writable(model)
    unread = [name for name in scene.inputs if name not in reads]
    if unread:
        left = [name for name in scene.inputs if name in reads]
        listed = ", ".join(name for name in modalities if name in reads)
        remedy = f"Name the inputs: inputs={left}" if left else "Add one of them, or take another model"
        raise OptionError(
            f"{', '.join(unread)} cannot be an input of {model}, which has embeddings of {listed}. {remedy}."
        )
    unwritten = [name for name in targets if name not in writes]
    if unwritten:
        listed = ", ".join(name for name in modalities if name in writes)
        raise OptionError(f"{', '.join(unwritten)} cannot be generated by {model}; its outputs are {listed}.")


def _offset_of_outputs(scene: Scene) -> float:
    """Offset that generated Sentinel-2 numbers carry: that of the first optical input in the table."""
    first = next((scene.offsets[name] for name in modalities if name in scene.offsets), 0.0)
    return 0.0 if isinstance(first, xr.DataArray) else first


def _targets(outputs: str | Sequence[str], inputs: Inputs) -> tuple[str, ...]:
    """Names of the outputs, each one that can be generated, none twice and none an input."""
    if not isinstance(outputs, str | Sequence):
        raise OptionError(f"outputs={outputs!r} cannot be used: expected a modality, or several in a list.")
    names = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not names:
        raise OptionError("No output is named; give one or several, e.g. 'LULC' or ['LULC', 'NDVI'].")
    possible = [name for name, modality in modalities.items() if modality.codebook]
    for name in names:
        if lookup(name).name not in possible:
            why = "is not available yet" if name == "Coordinates" else "is an input only"
            raise OptionError(f"{name} cannot be generated: it {why}. Outputs are {', '.join(possible)}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"{', '.join(twice)} is named twice in outputs; name each modality once.")
    both = sorted(({inputs} if isinstance(inputs, str) else set(inputs or ())) & set(names))
    if both:
        raise OptionError(
            f"{', '.join(both)} is named as input and as output. Leave it out of inputs to generate it."
        )
    return names


def _refuse_what_is_not_there_yet(**options: int) -> None:
    for name, value in options.items():
        if value != 1:
            raise OptionError(f"{name}={value!r} is not available yet; leave it at 1.")
