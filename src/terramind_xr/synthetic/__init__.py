"""A procedural world to try everything on, without a network."""

from terramind_xr.synthetic.dataset import scene, window

__all__ = ["scene", "window"]
