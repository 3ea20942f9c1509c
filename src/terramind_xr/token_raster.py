"""Token rasters that the user gives: checked by their metadata, north up, with the grid of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import dask
import dask.array as da
import numpy as np
import xarray as xr

from terramind_xr.data import Report, lookup
from terramind_xr.data.labels import band_dim
from terramind_xr.data.tokens import check_tokens, patches_of, scene_shape
from terramind_xr.engine import Source, Tiling
from terramind_xr.errors import InputError, OptionError
from terramind_xr.facts import PATCH, modalities
from terramind_xr.grid import Grid
from terramind_xr.model.recipe import Recipe


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
        cls,
        obj: xr.Dataset | xr.DataArray,
        name: str | None = None,
        shape: tuple[int, int] | None = None,
        *,
        beside: Grid | None = None,
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
        beside
            Pixels, north up and west left, whose patches these tokens must be; the dims take their names.

        Raises
        ------
        InputError
            What is given is no token raster, does not say what it is, or lies elsewhere than `beside`.
        OptionError
            `name` or `shape` contradicts it.
        """
        data = _only(obj)
        name = _modality(data, name)
        title = data.name if data.name is not None else f"{name}_tokens"
        Report(tuple(check_tokens(data, name, str(title)))).raise_for_errors()
        grid = Grid.of(data)
        layers = band_dim(data, grid.dims)
        if layers is not None:  # one, as rioxarray reads a file of one band
            data = data.isel({layers: 0}, drop=True)
        if not data.variable._in_memory and data.chunks is None:
            data = data.chunk("auto")
        upright = grid.upright(data)
        if beside is not None:
            upright = _laid_on(upright, str(title), beside)
            return cls(name, upright, data, grid, beside.shape)
        return cls(name, upright, data, grid, _shape(data, grid, shape))

    @property
    def title(self) -> str:
        """What messages call it."""
        return str(self.like.name) if self.like.name is not None else f"{self.name}_tokens"

    @property
    def grid(self) -> Grid:
        """Where the pixels lie, in the user's orientation."""
        return self.patches.pixels(self.shape)

    @property
    def upright(self) -> Grid:
        """Where the pixels lie, north up and west left."""
        return Grid.of(self.data).pixels(self.shape)

    @property
    def extra(self) -> dict[str, xr.DataArray]:
        """Coordinates of the dims that are not space, by dim."""
        return {str(dim): self.like[dim] for dim in self.like.dims if dim not in self.patches.dims}

    @property
    def is_lazy(self) -> bool:
        """Whether it is dask-backed."""
        return bool(dask.is_dask_collection(self.data.data))

    @property
    def tokenizer(self) -> str | None:
        """Digest of the tokenizer that made it; None where nothing says it."""
        said = self.like.attrs.get(f"terramind_{self.name}_sha256")
        return None if said is None else str(said)

    @property
    def offset(self) -> float:
        """What Sentinel-2 numbers had beside when the tokens were made."""
        return 0.0 - float(self.like.attrs.get("boa_add_offset", 0.0))

    def check_tokenizer(self, recipe: Recipe) -> None:
        """Raise InputError for tokens of another tokenizer: their numbers mean something else."""
        said, own = self.tokenizer, recipe.digests.get(self.name)
        if said is not None and own is not None and said != own:
            by = self.like.attrs.get("terramind_model", "another model")
            raise InputError(
                f"{self.title}: found tokens made by {by} (tokenizer {said[:12]}…), expected those "
                f"of {recipe.name} ({own[:12]}…). Use the model that made them: model=…"
            )

    def differs_along(self, extra: Mapping[str, xr.DataArray]) -> str | None:
        """What is wrong with dims such as time, in words, beside other inputs that have `extra`."""
        for dim, theirs in extra.items():
            if dim in self.data.dims:
                own = self.data[dim]
                same = own.size == theirs.size and (dim in own.coords) == (dim in theirs.coords)
                if same and (own.values == theirs.values).all():
                    continue
                found = f"{own.size} places along {dim!r}, not those of the other inputs"
            elif dim in self.data.coords and theirs.size > 1:
                found = f"one {dim}, {self.data[dim].values}, where other inputs have {theirs.size} of them"
            else:
                continue
            return (
                f"{self.title}: found {found}; expected the same {dim} in the same order, or none. Select "
                f"them: tokens.sel({dim}=ds.{dim}), or where they hold for all: tokens.drop_vars({dim!r})."
            )
        return None

    def source(self, extra: Sequence[str]) -> Source:
        """The array of the graph, in a scene with these extra dims."""
        own = [dim for dim in extra if dim in self.extra]
        data = self.data.transpose(*own, *Grid.of(self.data).dims)
        array = data.data if self.is_lazy else da.from_array(data.values, chunks=-1)
        axes = tuple(extra.index(dim) for dim in own)
        return Source(array[..., np.newaxis, :, :], axes, cell=PATCH, name=f"tokens of {self.name}")

    def sources(self, tiling: Tiling) -> list[Source]:
        """The one array of the graph of a scene that is nothing else."""
        return [self.source(list(self.extra))]

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
        f"ds[{(names or ['S2L2A_tokens'])[0]!r}]."
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
            f"{name!r} was given, but {data.name} holds tokens of {said}. Call them {said}, or correct the "
            "attribute terramind_tokens."
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
        if not whole or patches_of(shape) != grid.shape:
            raise OptionError(
                f"shape={shape!r} cannot be used: {data.name} has {grid.shape[0]} × {grid.shape[1]} patches "
                f"of {PATCH} pixels. Give rows and columns of the scene, or leave it out for whole patches."
            )
        return int(shape[0]), int(shape[1])
    said = scene_shape(data)
    if said is None:
        raise InputError(
            f"{data.name}: nothing says how many pixels the scene had (no attributes terramind_rows and "
            f"terramind_columns). Say it in these attributes, or to detokenize by shape=(rows, columns), for "
            f"whole patches shape={(PATCH * grid.shape[0], PATCH * grid.shape[1])}."
        )
    if patches_of(said) == grid.shape:
        return said
    return PATCH * grid.shape[0], PATCH * grid.shape[1]  # a crop


def _laid_on(data: xr.DataArray, title: str, pixels: Grid) -> xr.DataArray:
    """Tokens (…, y, x), north up, with the dims of the pixels that they stand for.

    InputError where they lie elsewhere.
    """
    data = data.rename(
        {old: new for old, new in zip(Grid.of(data).dims, pixels.dims, strict=True) if old != new}
    )
    grid = Grid.of(data)
    expected = patches_of(pixels.shape)
    bare = [
        dim for dim, axis in pixels.axes.items() if (axis.centres is None) != (grid.axes[dim].centres is None)
    ]
    if grid.shape != expected:
        how: str | None = f"{grid.shape[0]} × {grid.shape[1]} patches against {expected[0]} × {expected[1]}"
    elif bare:
        how = f"only one of them has coordinates along {bare[0]!r}"
    else:
        how = grid.pixels(pixels.shape).same_as(pixels)
    if how is not None:
        raise InputError(
            f"{title}: found tokens on another grid than the other inputs ({how}), expected the patches of "
            f"{PATCH} pixels of {pixels.shape[0]} × {pixels.shape[1]} ones, counted from the north-west. "
            "Tokenize the modality on the grid of the others, or cut both alike, at multiples of "
            f"{PATCH} pixels."
        )
    return data
