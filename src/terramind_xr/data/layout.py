"""From the user's variables to one array for each modality, bands in model order. Reads no pixel."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import xarray as xr

from terramind_xr.crs import CRS_KEYS
from terramind_xr.data.check import Check
from terramind_xr.data.labels import LABEL_ATTRS, LABEL_COORDS, WAVELENGTH_COORDS, band_dim, best_labels
from terramind_xr.data.metadata import (
    OFFSET_KEYS,
    PRODUCT_KEYS,
    named_baseline,
    nodata_of,
    packing,
    units_of,
)
from terramind_xr.data.units import same_units
from terramind_xr.facts import Modality, modalities
from terramind_xr.grid import Grid

ALIGN = "Bring everything onto one grid of 10 m: ds = ds.terramind.align()"
"""What settles every fault of resolution and alignment."""


@dataclass(frozen=True)
class ModalityInput:
    """One modality as the models want it laid out, still in the user's units.

    Parameters
    ----------
    modality
        The row of the modality table, with the bands that were asked for.
    data
        Dimensions ``(*extra, "band", y_dim, x_dim)``; bands in its order, coordinate ``band`` with ESA
        names; numpy stays numpy, everything else is dask.
    variables
        Names of the user's variables it was made of.
    units
        Unit of the numbers in `data`: the attribute ``units`` or, for packed Sentinel-2 reflectance, what
        the CF ``scale_factor`` says of them; None when both are silent.
    nodata
        Declared value of pixels without data (NaN included), or None.
    """

    modality: Modality
    data: xr.DataArray
    variables: tuple[str, ...]
    units: str | None
    nodata: float | None

    @cached_property
    def grid(self) -> Grid:
        """Where its pixels lie."""
        return Grid.of(self.data)

    @property
    def y_dim(self) -> str:
        """Name of the dimension of rows."""
        return self.grid.y.dim

    @property
    def x_dim(self) -> str:
        """Name of the dimension of columns."""
        return self.grid.x.dim

    @property
    def title(self) -> str:
        """What messages call it: the user's variable, or the modality where it is made of several."""
        return self.variables[0] if len(self.variables) == 1 else self.modality.name


Outcome = tuple["ModalityInput | None", "list[Check]"]
"""An input and its faults; with faults, it is what could be laid out, fit for further checks only."""


def from_variable(ds: xr.Dataset, modality: Modality, name: str) -> Outcome:
    """A modality from one variable, with a band dimension where it has several bands."""
    data = variable(ds, name)
    grid = Grid.find(data)
    if grid is None:
        return None, [_no_spatial(data, name)]
    dim = band_dim(data, grid.dims)
    single = not modality.is_banded
    faults: list[Check] = []
    if dim is None:
        data = data.expand_dims("band")
        faults += [] if single else [_no_band_dim(ds[name], modality, name)]
    else:
        if not (single and data.sizes[dim] == 1):  # a single layer cannot be taken for another
            positions, faults = _positions(data, dim, modality, name)
            if not faults and positions != list(range(data.sizes[dim])):
                data = data.isel({dim: positions})
        data = _as_band(data, dim)
    return _finish(ds, modality, data, (name,), grid.dims, named=not faults), faults


def _no_band_dim(data: xr.DataArray, modality: Modality, name: str) -> Check:
    return Check(
        name, "bands.dimension", "error", f"dimensions {tuple(map(str, data.dims))} without one for bands",
        f"the {len(modality.bands)} bands of {modality.name}: {', '.join(modality.band_names)}",
        f"Give it a band dimension, or a variable for each band: {_every_band(modality)}.",
    )  # fmt: skip


def _as_band(data: xr.DataArray, dim: str) -> xr.DataArray:
    """With `dim` called ``band``, and without its coordinates: they are replaced."""
    stale = [name for name, coord in data.coords.items() if dim in coord.dims or name == "band"]
    return data.drop_vars(stale).rename({dim: "band"} if dim != "band" else {})


def _positions(data: xr.DataArray, dim: str, modality: Modality, name: str) -> tuple[list[int], list[Check]]:
    """Where the bands are along `dim`, in model order, and what hinders to know."""
    labels, matched = best_labels(data, dim, modalities[modality.name])  # names of other bands are names
    wanted = f"the names of {', '.join(modality.band_names)}"
    if not matched and (labels is None or not labels.is_named):
        said = f" (only {labels.source}: {listed(labels.values)})" if labels else ""
        every = ", ".join(repr(band) for band in modality.band_names)
        names = f"[{every}]" if data.sizes[dim] == len(modality.bands) else "[…]"
        return [], [Check(
            name, "bands.unnamed", "error", f"{data.sizes[dim]} bands along {dim!r} without names{said}",
            f"{wanted}, as the order alone is not trusted",
            f"Name them in the order they have: ds = ds.assign_coords({dim}={names}), "
            f"or read the file with terramind_xr.open_rasters({{{modality.name!r}: path}}).",
        )]  # fmt: skip
    faults = []
    found = f"{labels.source}: {listed(labels.values)}" if labels else "no labels"
    missing = [band for band in modality.band_names if band not in matched]
    twice = {band: at for band, at in matched.items() if len(at) > 1 and band in modality.band_names}
    if missing:
        faults.append(Check(
            name, "bands.missing", "error", f"no {', '.join(missing)} in {found}", wanted,
            f"Add what is missing, or correct the names with .assign_coords({dim}=[…]).",
        ))  # fmt: skip
    if twice:
        which = ", ".join(f"{band} at {' and '.join(map(str, places))}" for band, places in twice.items())
        keep = [places[0] for places in matched.values()]
        faults.append(Check(
            name, "bands.twice", "error", f"more than one candidate ({which}) in {found}", wanted,
            f"Keep one of each, for example: ds = ds.isel({dim}={keep})",
        ))  # fmt: skip
    return [matched[band][0] for band in modality.band_names if band in matched], faults


def from_bands(ds: xr.Dataset, modality: Modality, chosen: Mapping[str, str]) -> Outcome:
    """A modality from a variable for each band; `chosen` holds the variable's name by band."""
    arrays = {chosen[band]: variable(ds, chosen[band]) for band in modality.band_names if band in chosen}
    found = {name: Grid.find(data) for name, data in arrays.items()}
    faults = [_no_spatial(arrays[name], name) for name, grid in found.items() if grid is None]
    grids = {name: grid for name, grid in found.items() if grid is not None}
    if not grids:
        return None, faults
    layers = {name: _one_layer(arrays[name], grid.dims) for name, grid in grids.items()}
    for differing, fault in (_other_grids(layers, grids, modality), *_other_metadata(layers, modality)):
        if fault is not None:
            faults.append(fault)
            layers = {name: data for name, data in layers.items() if name not in differing}
    first = next(iter(layers))
    joined: xr.DataArray = xr.concat(
        list(layers.values()),
        dim="band", coords="minimal", compat="override", join="override", combine_attrs="override",
    )  # fmt: skip
    complete = not faults and len(layers) == len(modality.bands)
    return _finish(ds, modality, joined, tuple(layers), grids[first].dims, named=complete), faults


def _one_layer(data: xr.DataArray, spatial: tuple[str, str]) -> xr.DataArray:
    """Without the band dimension of size 1 that rioxarray gives to a file of one band."""
    dim = band_dim(data, spatial)
    if dim is not None and data.sizes[dim] == 1:
        data = data.isel({dim: 0}, drop=True)
    return data.drop_vars(["band", *LABEL_COORDS, *WAVELENGTH_COORDS], errors="ignore")


Differing = tuple[Collection[str], "Check | None"]


def _other_grids(
    layers: Mapping[str, xr.DataArray], grids: Mapping[str, Grid], modality: Modality
) -> Differing:
    """Layers that do not lie on the grid of the first, and the fault that tells so."""
    first = next(iter(layers))
    differing, remedy = {}, ALIGN
    for name, data in layers.items():
        how = grids[name].same_as(grids[first])
        if how is None and data.dims != layers[first].dims:
            remedy = "Give them the same dimensions in the same order: ds = ds.transpose(..., 'y', 'x')."
            how = f"dimensions {tuple(map(str, data.dims))} against {tuple(map(str, layers[first].dims))}"
        if how is not None:
            differing[name] = how
    if not differing:
        return (), None
    which = "; ".join(f"{name}: {how}" for name, how in differing.items())
    return differing, Check(
        ", ".join(differing), "grid.bands", "error", f"another grid than {first!r} ({which})",
        f"the bands of {modality.name} on one grid of 10 m",
        remedy,
    )  # fmt: skip


def _other_metadata(layers: Mapping[str, xr.DataArray], modality: Modality) -> Iterator[Differing]:
    """Layers whose numbers mean something else than those of the first."""
    first = next(iter(layers))

    def same(what: str, one: Any, other: Any) -> bool:
        if what == "units" and None not in (one, other):
            return same_units(modality, one, other)
        return repr(one) == repr(other)  # by their text: NaN is not equal to itself

    said: dict[str, dict[str, Any]] = {
        "units": {name: units_of(data, modality) for name, data in layers.items()},
        "nodata": {name: nodata_of(data) for name, data in layers.items()},
        "scale_factor, add_offset": {name: packing(data.attrs) for name, data in layers.items()},
    }
    for what, values in said.items():
        own = values[first]
        differing = {name: value for name, value in values.items() if not same(what, value, own)}
        if differing:
            which = ", ".join(f"{value!r} in {name!r}" for name, value in differing.items())
            yield differing, Check(
                ", ".join(differing), "units.mixed" if what == "units" else "metadata.mixed", "error",
                f"{what} {which}, but {own!r} in {first!r}", f"the same for all bands of {modality.name}",
                "Convert the bands alike, or correct the attributes that are wrong.",
            )  # fmt: skip


def _finish(
    ds: xr.Dataset,
    modality: Modality,
    data: xr.DataArray,
    names: tuple[str, ...],
    spatial: tuple[str, str],
    named: bool,
) -> ModalityInput:
    units, nodata = units_of(data, modality), nodata_of(data)
    encoding = dict(data.encoding)
    data = data.transpose(..., "band", *spatial).rename(modality.name)
    if named:
        data = data.assign_coords(band=list(modality.band_names))
    # Labels in attributes are of the old order; the text that open_rasters leaves in band_names stays.
    stale = {key for key in LABEL_ATTRS if key != "band_names" or not isinstance(data.attrs.get(key), str)}
    attrs = {key: value for key, value in data.attrs.items() if key not in stale}
    if modality.is_optical:
        attrs = {key: ds.attrs[key] for key in OFFSET_KEYS if key in ds.attrs} | attrs
        products = [ds.attrs[key] for key in PRODUCT_KEYS if named_baseline(ds.attrs.get(key)) is not None]
        if products:
            attrs.setdefault("s2:product_uri", products[0])
    data.attrs, data.encoding = attrs, encoding
    return ModalityInput(modality, data, names, units, nodata)


def variable(ds: xr.Dataset, name: str) -> xr.DataArray:
    """The variable, with its CRS at hand, and chunked where it is neither in memory nor chunked yet."""
    data = ds[name]
    mapping = data.encoding.get("grid_mapping", data.attrs.get("grid_mapping", "spatial_ref"))
    # netCDF files opened without decode_coords="all" hold the grid mapping as a data variable.
    if mapping in ds.data_vars and ds[mapping].ndim == 0:
        data = data.assign_coords({mapping: ds[mapping].variable})
    said = {key: ds.attrs[key] for key in ("crs", *CRS_KEYS) if key in ds.attrs}
    if "crs" in ds.data_vars and ds["crs"].ndim == 0 and ds["crs"].dtype.kind in "iu":
        said["epsg"] = int(ds["crs"])  # a sample of TerraMesh
    if said and not said.keys() & {*data.attrs, *data.coords}:
        data = data.assign_attrs(said)  # stackstac's, once the bands are variables of their own
    # xr.concat would load what is indexed lazily; strings and objects have no chunk size of their own.
    if not data.variable._in_memory and data.chunks is None:
        data = data.chunk("auto" if data.dtype.kind in "iuf" else {})
    return data


def _no_spatial(data: xr.DataArray, name: str) -> Check:
    own = [str(dim) for dim in data.dims if dim != band_dim(data, ()) and dim not in ("time", "y", "x")]
    names = dict(zip(own[-2:], ("y", "x"), strict=True)) if len(own) > 1 else None
    how = f"ds = ds.rename({names})" if names else "its rows are y, its columns x."
    return Check(
        name, "dimensions.spatial", "error", f"dimensions {tuple(map(str, data.dims))}",
        "two spatial ones, (y, x) or (lat, lon)",
        f"Rename them: {how}",
    )  # fmt: skip


def _every_band(modality: Modality) -> str:
    """The argument that says which variable holds each band."""
    return f'inputs={{"{modality.name}": {{"{modality.band_names[0]}": "my_variable", …}}}}'


def mapping_call(modality: Modality, band: str, variable: str = "my_variable") -> str:
    """The argument that says which variable holds a band; the others are found by name."""
    return f'inputs={{"{modality.name}": {{"{band}": "{variable}"}}}}'


def listed(values: Iterable[Any], most: int = 20) -> str:
    """Values for a message, the first of them where there are many."""
    every = [str(value) for value in values]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
