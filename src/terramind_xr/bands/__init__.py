"""Find modalities and bands in xarray objects, by name and never by position alone."""

from terramind_xr.bands.check import Check
from terramind_xr.bands.inputs import ModalityInput
from terramind_xr.bands.search import as_dataset, find_inputs, lookup

__all__ = ["Check", "ModalityInput", "as_dataset", "find_inputs", "lookup"]
