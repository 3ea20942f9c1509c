"""`generate`: modalities from those that a scene holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import xarray as xr

from terramind_xr.api.mapping import mapped
from terramind_xr.api.options import (
    ModelName,
    check_batch_size,
    check_probabilities,
    check_readable,
    chosen_model,
    execution,
    without_coordinates,
)
from terramind_xr.data import Mask, Offset, lookup
from terramind_xr.engine import Tiling
from terramind_xr.errors import OptionError
from terramind_xr.facts import UNVERIFIED, modalities
from terramind_xr.georeference import Georeference
from terramind_xr.kernels import GenerateKernel, TokenInput
from terramind_xr.label import provenance
from terramind_xr.model.execution import Execution
from terramind_xr.model.recipe import codebook, describe, find, readable_tokens, writable
from terramind_xr.model.sampling import Decoding, Sampling, Solver
from terramind_xr.options import Precision, get_options
from terramind_xr.scene import Scene
from terramind_xr.token_inputs import Inputs, named_inputs, part_inputs


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
        are carried through. Tokens, as `tokenize` gives them, are inputs as they are.
    outputs
        One modality or several: S2L2A, S1GRD, S1RTC, DEM, LULC, NDVI, Coordinates (not verified). An earlier
        one conditions a later one.
    inputs
        Modalities to use, or ``{"S2L2A": {"B02": "my_variable", …}}`` where names are ambiguous. By default
        every pixel modality in the object; LULC, NDVI and Coordinates only when named. ``{"DEM": tokens,
        "S2L2A": None}`` takes the DEM from a token raster on the same scene, and S2L2A from the object.
        Coordinates (not verified) follow from the CRS: each tile is told its centre.
    model
        Name from `models`, or a folder with the files; by default the option ``model``.
    seed
        Of all random numbers, which belong to places of the scene.
    offset
        Radiometric offset within Sentinel-2 numbers: ``"auto"`` from the metadata (of each date by itself),
        or 0 or 1000, or a DataArray of them along time. ``"infer"`` asks a sample of the pixels, too, which
        is read at the call. Generated Sentinel-2 numbers carry the offset of
        the S2L2A input, else of the S2L1C one; 0 where dates differ.
    mask
        True where pixels are not to be used, e.g. clouds: one array for all inputs, or one by input. It is
        matched by its coordinates; a mask without time holds for every date. ``"SCL"``, the name of a
        variable, hides clouds, their shadows and what is defective from the optical inputs, and
        ``{"SCL": [3, 8, 9]}`` the classes named. Tokens take no mask: patches that hold 65535 are not used.
    decoding
        ``"argmax"`` decodes the most probable (or drawn) tokens, as upstream; ``"expected"`` the mean over
        all tokens by their probability, which draws nothing and shows the patches less.
    shifts
        Passes over the scene whose predictions are averaged: 1, 2 or 4. The tiles of further passes start
        half a patch further, so that patches show less; each takes the time of the first. Not for tokens.
    decoding_steps
        Steps in which the tokens of an output are decoded; 1 for now.
    diffusion_steps
        Steps of the outputs with a diffusion decoder (all but LULC).
    solver
        How these steps go: ``"ddim"``, as upstream; or ``"dpm++"`` or ``"unipc"``, which draw on the steps
        before. With one step all three are the same.
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
        data. Coordinates and CRS are the input's. Attributes say how it was made. The modality Coordinates is
        float32 degrees, one pair a tile: (time, …, coordinate, tile_y, tile_x), NaN where none were found.

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
    sampling = chosen_sampling(
        seed=seed, decoding=decoding, decoding_steps=decoding_steps, diffusion_steps=diffusion_steps,
        solver=solver, temperature=temperature, top_p=top_p, top_k=top_k, samples=samples, clamp=clamp,
    )  # fmt: skip
    call = Call.of(
        obj, outputs, inputs=inputs, model=model, offset=offset, mask=mask, probabilities=probabilities,
        sampling=sampling, execution=execution(device, precision), overlap=overlap, shifts=shifts,
        batch_size=batch_size,
    )  # fmt: skip
    results = mapped(call.scene, call.kernel, call.tiling, batch_size=batch_size, made=call.made())
    return results[0] if isinstance(outputs, str) else xr.Dataset({str(each.name): each for each in results})


@dataclass(frozen=True)
class Call:
    """A checked call of `generate`."""

    scene: Scene
    kernel: GenerateKernel
    tiling: Tiling
    shifts: int

    @classmethod
    def of(
        cls,
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
    ) -> Call:
        """Check everything that a call says, on metadata alone, and put it in order.

        Without `loads`, the weights need not be there.
        """
        targets = _targets(outputs, inputs)
        check_batch_size(batch_size)
        check_probabilities(probabilities, targets)
        _check_shifts(shifts, targets)
        model = chosen_model(model)
        inputs, located = without_coordinates(inputs)
        given = part_inputs(obj, inputs, exclude=targets)
        scene = Scene.of(
            given.pixels, given.names, tokens=given.tokens, exclude=targets, offset=offset, mask=mask
        )
        tiling = Tiling.of(scene.grid.shape, overlap=overlap, block=get_options().block, shifts=shifts)
        _refuse_unknown(model, scene, located, targets)
        if scene.tokens and shifts != 1:
            raise OptionError(
                f"shifts={shifts!r} cannot be used with tokens as inputs ({', '.join(scene.tokens)}): the "
                "tiles of further passes start half a patch further. Leave it at 1, or give pixels."
            )
        recipe = (find if loads else describe)(model, _tokenizers(scene, located, targets))
        for raster in scene.tokens.values():
            raster.check_tokenizer(recipe)
        vocabularies = (TokenInput(name, codebook(model, name), recipe.name) for name in scene.tokens)
        kernel = GenerateKernel(
            recipe=recipe,
            inputs=(*scene.kernel_inputs(), *vocabularies),
            targets=targets,
            sampling=sampling,
            execution=execution,
            probabilities=probabilities,
            offset=_offset_of_outputs(scene),
            georeference=Georeference.of(scene.grid) if located else None,
        )
        return cls(scene, kernel, tiling, int(shifts))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Modalities that are used."""
        return (*self.scene.names, *(() if self.kernel.georeference is None else ("Coordinates",)))

    def made(self) -> dict[str, Any]:
        """Attributes that say how the results are made."""
        return provenance(
            self.kernel.recipe,
            self.kernel.execution,
            **self.kernel.sampling.told(),
            inputs=" ".join(self.inputs),
            outputs=" ".join(self.kernel.targets),
            shifts=self.shifts,
            # None is left out.
            unverified=UNVERIFIED if "Coordinates" in (*self.inputs, *self.kernel.targets) else None,
        )


def _tokenizers(scene: Scene, located: bool, targets: tuple[str, ...]) -> set[str]:
    """Modalities whose tokenizers a call needs: for maps and outputs, and to know foreign tokens by."""
    maps = {name for name in scene.inputs if modalities[name].raw_key is None}
    foreign = {name for name, raster in scene.tokens.items() if raster.tokenizer}
    return {*targets, *maps, *foreign, *(("Coordinates",) if located else ())}


def _check_shifts(shifts: int, targets: tuple[str, ...]) -> None:
    """Raise OptionError for further passes that nothing would come of."""
    if targets == ("Coordinates",) and shifts != 1:
        raise OptionError(
            f"shifts={shifts!r} cannot be used for Coordinates alone: passes are averaged, and each tile has "
            "coordinates of its own. Leave it at 1."
        )


def _refuse_unknown(
    model: str | os.PathLike[str], scene: Scene, located: bool, targets: tuple[str, ...]
) -> None:
    """Raise OptionError for inputs that the model cannot read, and outputs that it cannot write."""
    names = (*scene.inputs, *(("Coordinates",) if located else ()))
    check_readable(model, names)
    check_readable(model, tuple(scene.tokens), readable_tokens(model), " as tokens")
    writes = writable(model)
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
    possible = [name for name, modality in modalities.items() if modality.token_key]
    for name in names:
        if lookup(name).name not in possible:
            raise OptionError(
                f"{name} cannot be generated: it is an input only. Outputs are {', '.join(possible)}."
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"{', '.join(twice)} is named twice in outputs; name each modality once.")
    both = sorted(set(named_inputs(inputs)) & set(names))
    if both:
        raise OptionError(
            f"{', '.join(both)} is named as input and as output. Leave it out of inputs to generate it."
        )
    return names


def chosen_sampling(
    *, temperature: float | None, decoding_steps: int, samples: int, **options: Any
) -> Sampling:
    """How tokens are drawn and decoded, by the options of `generate`."""
    _refuse_what_is_not_there_yet(decoding_steps=decoding_steps, samples=samples)
    return Sampling(temperature=0.0 if temperature is None else temperature, **options)


def _refuse_what_is_not_there_yet(**options: int) -> None:
    for name, value in options.items():
        if value != 1:
            raise OptionError(f"{name}={value!r} is not available yet; leave it at 1.")
