"""What a configuration names as ``custom_modules_path``: it makes the demo known to terratorch."""

from terramind_xr.model.registry import register

register()
