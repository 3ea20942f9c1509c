"""dask over any kernel: tiles, blocks, margins, order and storage. No model and no modality."""

from terramind_xr.engine.graph import Source, map_tiles
from terramind_xr.engine.identity import ORIGIN, Origin
from terramind_xr.engine.kernel import Field, Kernel, Layer, Output
from terramind_xr.engine.tiling import Tiling

__all__ = ["ORIGIN", "Field", "Kernel", "Layer", "Origin", "Output", "Source", "Tiling", "map_tiles"]
