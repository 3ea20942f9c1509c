"""`validate`: what metadata say against the use of data."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from terramind_xr.api.align import aligned
from terramind_xr.data import Report, as_dataset, inspect
from terramind_xr.data.trees import tree_fault
from terramind_xr.facts import RESOLUTION


def validate(
    obj: xr.Dataset | xr.DataArray | xr.DataTree,
    modality: str | Sequence[str] | None = None,
    *,
    sample: bool = False,
) -> Report:
    """Check that data can be used as it is.

    Only metadata is read, unless a sample of the pixels is asked for. What the pixels alone show is checked
    by each block while the model runs.

    Parameters
    ----------
    obj
        A Dataset with a variable for each modality or for each band, or a DataArray that is called after
        its modality. Dimensions stand in any order; the spatial ones are called (y, x) or (lat, lon). What
        `tokenize` made is known by its attributes, and checked as tokens.
        Of a DataTree, what `align` makes of it is checked; that it is one is an error among the checks.
    modality
        Names of the modalities to look for, or None for all that the object holds. For a DataArray with
        another name, one modality says what it is.
    sample
        Whether to read up to sixteen windows of 32 × 32 pixels a date, at places that depend on the size of
        the scene alone: whether they agree with the metadata on the offset, how far they are from what the
        models were trained on, and whether a scale or exchanged bands would explain it.

    Returns
    -------
    Report
        One row for each check (bands, product, shape, dtype, scale, units, nodata, offset, CRS,
        resolution, alignment; of a sample: validity, sample; of tokens: tokens, dtype, vocabulary, shape,
        CRS, resolution), each ok, warning or error with the remedy.

    Raises
    ------
    InputError
        The object is none of xarray's. Faults of the data are in the report.
    OptionError
        The modality is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> dem = xr.DataArray(np.zeros((4, 4)), dims=("y", "x"), name="DEM", attrs={"units": "ft"})
    >>> report = validate(dem)
    >>> report.ok, [check.check for check in report.warnings]
    (True, ['crs', 'resolution'])
    >>> validate(dem.rename("height of something"), "S1RTC").ok
    False
    """
    single = modality if isinstance(modality, str) else None
    names = [modality] if isinstance(modality, str) else modality
    if isinstance(obj, xr.DataTree):
        ds, faults = aligned(obj, None, RESOLUTION)
        if faults:
            return Report(tuple(faults))
        return Report((tree_fault(obj), *inspect(ds, names, sample=sample).checks))
    return inspect(as_dataset(obj, single), names, sample=sample)
