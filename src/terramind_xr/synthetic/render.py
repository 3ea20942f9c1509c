"""How each modality is made from the surface of a window."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.modalities import modalities
from terramind_xr.synthetic.atmosphere import top_of_atmosphere
from terramind_xr.synthetic.clouds import clouded
from terramind_xr.synthetic.fields import speckle, stream
from terramind_xr.synthetic.radar import INCIDENCE, LOOKS, backscatter
from terramind_xr.synthetic.spectra import digital_numbers
from terramind_xr.synthetic.terrain import elevation, lake_level
from terramind_xr.synthetic.world import Surface, ground, surface

Array = NDArray[Any]

BRIGHT = 2000
"""Digital number that is white in RGB: reflectance 0.2."""


@dataclass(frozen=True)
class Look:
    """How a world is seen: the offset in the digital numbers, and the share of clouds (None: its own)."""

    offset: int = 0
    clouds: float | None = None


@dataclass(frozen=True)
class Window:
    """One window of one world; surfaces are computed when they are first asked for."""

    seed: int
    y: int
    x: int
    height: int
    width: int
    look: Look = Look()

    @property
    def place(self) -> tuple[int, int, int, int, int]:
        """Seed, first row and column, height and width."""
        return self.seed, self.y, self.x, self.height, self.width

    @cached_property
    def ground(self) -> Surface:
        """Without clouds."""
        return ground(*self.place)

    @cached_property
    def truth(self) -> Surface:
        """What land cover and vegetation index show: with the world's own clouds, below chosen ones."""
        return surface(*self.place) if self.look.clouds is None else self.ground

    @cached_property
    def seen(self) -> Surface:
        """What an optical sensor sees."""
        if self.look.clouds is None:
            return self.truth
        return clouded(self.ground, self.seed, self.y, self.x, self.look.clouds)


def _reflectance(window: Window, seen: Surface) -> Array:
    rows = np.arange(window.y, window.y + window.height)
    columns = np.arange(window.x, window.x + window.width)
    noise = [
        speckle(stream(window.seed, f"sensor/{band}"), rows, columns)
        for band in modalities["S2L2A"].band_names
    ]
    return digital_numbers(seen.first, seen.second, seen.mix, seen.shade, seen.haze, noise)


def _bands(numbers: Array, *names: str) -> list[Array]:
    order = modalities["S2L2A"].band_names
    return [numbers[order.index(name)] for name in names]


def _level_2a(window: Window) -> Array:
    return _reflectance(window, window.seen) + np.uint16(window.look.offset)


def _level_1c(window: Window) -> Array:
    numbers = top_of_atmosphere(_reflectance(window, window.seen), window.seen.haze, window.seen.cloud)
    result: Array = numbers + np.uint16(window.look.offset)
    return result


def _true_colour(window: Window) -> Array:
    colours = np.stack(_bands(_reflectance(window, window.seen), "B04", "B03", "B02")).astype(np.float32)
    stretched = colours * np.float32(255 / BRIGHT) + np.float32(0.5)
    eight_bit: Array = np.clip(stretched, 0, 255).astype(np.uint8)
    return eight_bit


def _radar(corrected: bool) -> Callable[[Window], Array]:
    return lambda window: backscatter(window.ground, window.seed, window.y, window.x, corrected)


def _elevation(window: Window) -> Array:
    land, metres = window.ground, elevation(*window.place)
    # Microrelief grows with the height; land lies above the sea.
    rough = np.float32(1) + np.float32(0.004) * np.clip(metres, 0, 1000)
    dry = np.maximum(metres + np.where(land.water, np.float32(0), rough * land.relief), np.float32(0.5))
    if land.lake.any():
        dry = np.where(land.lake, lake_level(*window.place), dry)
    result: Array = np.where(land.shore < 0, np.float32(0), dry)
    return result


def _land_cover(window: Window) -> Array:
    return window.truth.cover


def _vegetation_index(window: Window) -> Array:
    numbers = _reflectance(window, window.truth)
    red, infrared = (band.astype(np.float32) for band in _bands(numbers, "B04", "B08"))
    index: Array = (infrared - red) / (infrared + red)
    return index


def _cloud(window: Window) -> Array:
    return window.seen.cloud > 0


@dataclass(frozen=True)
class Layer:
    """One variable of a scene: how it is made, dtype, bands, and its own attributes."""

    render: Callable[[Window], Array]
    dtype: str
    bands: tuple[str, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()


def _of(name: str, render: Callable[[Window], Array], dtype: str, **attributes: Any) -> Layer:
    bands = modalities[name].band_names
    return Layer(render, dtype, bands if len(bands) > 1 else (), tuple(attributes.items()))


_ORBIT = {"orbit_state": "ascending", "incidence_angle": INCIDENCE, "equivalent_number_of_looks": LOOKS}

LAYERS: dict[str, Layer] = {
    "S2L2A": _of("S2L2A", _level_2a, "uint16"),
    "LULC": _of("LULC", _land_cover, "uint8"),
    "NDVI": _of("NDVI", _vegetation_index, "float32"),
    "S2L1C": _of("S2L1C", _level_1c, "uint16"),
    "RGB": _of("RGB", _true_colour, "uint8"),
    "S1GRD": _of("S1GRD", _radar(corrected=False), "float32", backscatter="sigma0", **_ORBIT),
    "S1RTC": _of("S1RTC", _radar(corrected=True), "float32", backscatter="gamma0", **_ORBIT),
    "DEM": _of("DEM", _elevation, "float32"),
}
"""Every modality of the world: a new one is one more entry."""

CLOUD = Layer(_cloud, "bool", attributes=(("long_name", "cloud"), ("comment", "without cloud shadows")))
"""Truth of chosen clouds; no modality."""


def render(window: Window, names: Iterable[str]) -> dict[str, Array]:
    """The named layers of a window; ``"cloud"`` is one, too."""
    return {name: layer(name).render(window) for name in names}


def layer(name: str) -> Layer:
    """Layer of a modality or of the cloud mask."""
    return CLOUD if name == "cloud" else LAYERS[name]
