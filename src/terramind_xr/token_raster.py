"""Token rasters that the user gives: checked by their metadata, north up, with the grid of their pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import dask
import dask.array as da
import numpy as np
import xarray as xr

from terramind_xr.data import lookup
from terramind_xr.data.labels import band_dim
from terramind_xr.engine import Source, Tiling
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import PATCH, RESOLUTION, modalities
from terramind_xr.grid import Grid
from terramind_xr.model.recipe import Recipe

# Grids in degrees are not of 160 m to the last metre.
_TOLERATED = 0.05


@dataclass(frozen=True)
class TokenRaster:
    """Tokens of one modality on the patch grid.

    Parameters
    ----------
    name
        Modality.
    data
        (*extra, y, x), north up and west left.
    like
        The same as the user has it.
    patches
        Where the patches lie, in the user's orientation.
    shape
        Rows and columns of the scene, in pixels.
    """

    name: str
    data: xr.DataArray
    like: xr.DataArray
    patches: Grid
    shape: tuple[int, int]

    cell: ClassVar[int] = PATCH

    @classmethod
    def of(
        cls, obj: xr.Dataset | xr.DataArray, name: str | None = None, shape: tuple[int, int] | None = None
    ) -> TokenRaster:
        """Find and check a token raster by its metadata.

        Parameters
        ----------
        obj
            A token raster, or a dataset with one.
        name
            Its modality, where its attributes do not say it.
        shape
            Rows and columns of the scene in pixels, where its attributes do not say them.

        Raises
        ------
        InputError
            What is given is no token raster, or does not say what it is.
        OptionError
            `name` or `shape` contradicts it.
        """
        data = _only(obj)
        name = _modality(data, name)
        title = data.name if data.name is not None else f"{name}_tokens"
        if data.dtype.kind not in "iu":
            raise InputError(
                f"{title}: found {data.dtype}, expected whole numbers. What was read as floats is tokens "
                f"again by .fillna(65535).astype('uint16'); pixels become tokens by tokenize({name!r})."
            )
        grid = Grid.of(data)
        layers = band_dim(data, grid.dims)
        if layers is not None and data.sizes[layers] == 1:  # as rioxarray reads a file of one band
            data = data.isel({layers: 0}, drop=True)
        elif layers is not None:
            raise InputError(
                f"{title}: found {data.sizes[layers]} layers along {layers!r}, expected one map of tokens. "
                f"Select one: .isel({layers}=0)."
            )
        size = grid.ground_resolution
        expected = PATCH * RESOLUTION
        if size is not None and max(abs(side / expected - 1) for side in size) > _TOLERATED:
            raise InputError(
                f"{title}: found cells of {size[0]:.4g} × {size[1]:.4g} m, expected the patch grid of "
                f"{expected:g} m. Give tokens as tokenize made them, without resampling."
            )
        if not data.variable._in_memory and data.chunks is None:
            data = data.chunk("auto")
        upright = data.isel(dict.fromkeys(grid.runs_backwards, slice(None, None, -1)))
        return cls(name, upright, data, grid, _shape(data, grid, shape))

    @property
    def grid(self) -> Grid:
        """Where the pixels lie, in the user's orientation."""
        return self.patches.pixels(self.shape)

    @property
    def extra(self) -> dict[str, xr.DataArray]:
        """Coordinates of the dims that are not space, by dim."""
        return {str(dim): self.like[dim] for dim in self.like.dims if dim not in self.patches.dims}

    @property
    def is_lazy(self) -> bool:
        """Whether it is dask-backed."""
        return bool(dask.is_dask_collection(self.data.data))

    @property
    def offset(self) -> float:
        """What Sentinel-2 numbers had beside when the tokens were made."""
        return 0.0 - float(self.like.attrs.get("boa_add_offset", 0.0))

    def check_tokenizer(self, recipe: Recipe) -> None:
        """Raise InputError for tokens of another tokenizer: their numbers mean something else."""
        said, own = self.like.attrs.get(f"terramind_{self.name}_sha256"), recipe.digests[self.name]
        if said is not None and said != own:
            by = self.like.attrs.get("terramind_model", "another model")
            raise InputError(
                f"{self.like.name}: found tokens made by {by} (tokenizer {str(said)[:12]}…), expected those "
                f"of {recipe.name} ({own[:12]}…). Decode them with the model that made them: model=…"
            )

    def sources(self, tiling: Tiling) -> list[Source]:
        """The array of the graph."""
        data = self.data.transpose(*self.extra, *self.patches.dims)
        array = data.data if self.is_lazy else da.from_array(data.values, chunks=-1)
        return [Source(array[..., np.newaxis, :, :], tuple(range(len(self.extra))), cell=PATCH)]

    def as_given(self, array: Any) -> Any:
        """Result (…, y, x) in the orientation of the raster."""
        backwards = self.patches.runs_backwards
        turns = tuple(slice(None, None, -1 if dim in backwards else 1) for dim in self.patches.dims)
        turned = array[(..., *turns)]
        return np.ascontiguousarray(turned) if isinstance(turned, np.ndarray) else turned

    def provenance(self) -> dict[str, Any]:
        """Nothing decides the result besides tokens, model and options."""
        return {}


def _only(obj: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """The one token raster of what is given."""
    if isinstance(obj, xr.DataArray):
        return obj
    if not isinstance(obj, xr.Dataset):
        raise InputError(
            f"the tokens are a {type(obj).__name__}; expected a DataArray as tokenize gives it. Wrap them "
            "in xr.DataArray, with the coordinates of their patches."
        )
    names = [str(name) for name, data in obj.data_vars.items() if "terramind_tokens" in data.attrs]
    if len(names) == 1:
        return obj[names[0]]
    listed = ", ".join(map(str, obj.data_vars)) or "none"
    raise InputError(
        f"found {len(names)} token rasters among the variables {listed}, expected one. Give the variable: "
        f"detokenize(ds[{(names or ['S2L2A_tokens'])[0]!r}])."
    )


def _modality(data: xr.DataArray, name: str | None) -> str:
    said = data.attrs.get("terramind_tokens")
    if name is None and said is None:
        raise InputError(
            f"{data.name}: nothing says whose tokens these are (no attribute terramind_tokens). Say it: "
            "detokenize(tokens, 'S2L2A')."
        )
    if name is not None and said is not None and name != said:
        raise OptionError(
            f"modality={name!r} was given, but {data.name} holds tokens of {said}. Leave it out, or correct "
            "the attribute terramind_tokens."
        )
    found = lookup(str(name if name is not None else said)).name
    if not modalities[found].codebook:
        having = ", ".join(each for each, modality in modalities.items() if modality.codebook)
        raise OptionError(f"{found} has no tokens; modalities with a tokenizer are {having}.")
    return found


def _shape(data: xr.DataArray, grid: Grid, shape: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of the scene in pixels, if they fit the raster; whole patches of a crop."""
    if shape is not None:
        whole = len(shape) == 2 and all(isinstance(side, int | np.integer) for side in shape)
        if not whole or tuple(math.ceil(side / PATCH) for side in shape) != grid.shape:
            raise OptionError(
                f"shape={shape!r} cannot be used: {data.name} has {grid.shape[0]} × {grid.shape[1]} patches "
                f"of {PATCH} pixels. Give rows and columns of the scene, or leave it out for whole patches."
            )
        return int(shape[0]), int(shape[1])
    try:
        said = tuple(int(float(data.attrs[f"terramind_{side}"])) for side in ("rows", "columns"))
    except (KeyError, ValueError):
        raise InputError(
            f"{data.name}: nothing says how many pixels the scene had (no attributes terramind_rows and "
            f"terramind_columns). Say it: shape=(rows, columns), for whole patches "
            f"shape={(PATCH * grid.shape[0], PATCH * grid.shape[1])}."
        ) from None
    if tuple(math.ceil(side / PATCH) for side in said) == grid.shape:
        return said[0], said[1]
    return PATCH * grid.shape[0], PATCH * grid.shape[1]  # a crop
