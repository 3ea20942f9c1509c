"""A procedural world to try everything on, without a network."""

from terramind_xr.synthetic.dataset import scene, window
from terramind_xr.synthetic.flood import flood

__all__ = ["flood", "scene", "window"]
