"""The user's data: find modalities and bands by name, check what would ruin a result. Reads no pixel.

Numbers are looked at where a block is read: see `terramind_xr.data.values`.
"""

from terramind_xr.data.check import Check
from terramind_xr.data.claims import Request
from terramind_xr.data.codes import Mask, with_names
from terramind_xr.data.items import with_stac
from terramind_xr.data.layout import ModalityInput
from terramind_xr.data.masks import match_masks
from terramind_xr.data.offset import Offset
from terramind_xr.data.report import Report
from terramind_xr.data.search import Bands, Names, as_dataset, find_inputs, held, lookup
from terramind_xr.data.validation import Examined, check_inputs, examine, inspect

__all__ = [
    "Bands",
    "Check",
    "Examined",
    "Mask",
    "ModalityInput",
    "Names",
    "Offset",
    "Report",
    "Request",
    "as_dataset",
    "check_inputs",
    "examine",
    "find_inputs",
    "held",
    "inspect",
    "lookup",
    "match_masks",
    "with_names",
    "with_stac",
]
