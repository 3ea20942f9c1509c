"""How each modality is made from the surface of a window."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terramind_xr.facts import modalities
from terramind_xr.synthetic.atmosphere import top_of_atmosphere
from terramind_xr.synthetic.clouds import Mask, clouded
from terramind_xr.synthetic.fields import speckle, stream
from terramind_xr.synthetic.phenology import NOMINAL, seasonal
from terramind_xr.synthetic.radar import INCIDENCE, LOOKS, backscatter
from terramind_xr.synthetic.spectra import TABLE, Cover, digital_numbers
from terramind_xr.synthetic.world import Surface, ground, surface

Array = NDArray[Any]

BRIGHT = 2000
"""Digital number that is white in RGB: reflectance 0.2."""


@dataclass(frozen=True)
class Look:
    """How a world is seen.

    Parameters
    ----------
    offset
        In the digital numbers of Sentinel-2.
    clouds
        Their share; None for the world's own.
    day
        In days since 1970.
    """

    offset: int = 0
    clouds: float | None = None
    day: int = NOMINAL


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
    def place(self) -> tuple[int, int, int, int, int, int]:
        """Seed, day, first row and column, height and width."""
        return self.seed, self.look.day, self.y, self.x, self.height, self.width

    @cached_property
    def ground(self) -> Surface:
        """Without clouds."""
        return ground(*self.place)

    @cached_property
    def truth(self) -> Surface:
        """What land cover and vegetation index show: with the world's own clouds, below chosen ones."""
        return surface(*self.place) if self.look.clouds is None else self.ground

    @cached_property
    def seen(self) -> tuple[Surface, Mask]:
        """What an optical sensor sees, and where chosen clouds cast their shadows."""
        if self.look.clouds is None:
            return self.truth, np.zeros(self.truth.cover.shape, bool)
        return clouded(self.ground, self.seed, self.look.day, self.y, self.x, self.look.clouds)

    @cached_property
    def reflectance(self) -> Array:
        """Digital numbers without offset of what is seen, (12 bands, y, x)."""
        return self._numbers(self.seen[0])

    @cached_property
    def true_reflectance(self) -> Array:
        """The same of what is true: without chosen clouds."""
        return self.reflectance if self.look.clouds is None else self._numbers(self.truth)

    def _numbers(self, surface: Surface) -> Array:
        rows, columns = np.arange(self.y, self.y + self.height), np.arange(self.x, self.x + self.width)
        noise = (
            speckle(stream(self.seed, f"sensor/{band}/{self.look.day}"), rows, columns)
            for band in modalities["S2L2A"].band_names
        )
        cover = Cover(*(getattr(surface, name) for name in Cover._fields))
        return digital_numbers(seasonal(self.look.day, TABLE), cover, noise)


def _bands(numbers: Array, *names: str) -> list[Array]:
    order = modalities["S2L2A"].band_names
    return [numbers[order.index(name)] for name in names]


def _level_2a(window: Window) -> Array:
    return window.reflectance + np.uint16(window.look.offset)


def _level_1c(window: Window) -> Array:
    seen, _ = window.seen
    numbers = top_of_atmosphere(window.reflectance, seen.haze, seen.cloud)
    result: Array = numbers + np.uint16(window.look.offset)
    return result


def _true_colour(window: Window) -> Array:
    colours = np.stack(_bands(window.reflectance, "B04", "B03", "B02")).astype(np.float32)
    stretched = colours * np.float32(255 / BRIGHT) + np.float32(0.5)
    eight_bit: Array = np.clip(stretched, 0, 255).astype(np.uint8)
    return eight_bit


def _radar(corrected: bool) -> Callable[[Window], Array]:
    return lambda window: backscatter(
        window.ground, window.seed, window.look.day, window.y, window.x, corrected
    )


def _elevation(window: Window) -> Array:
    metres: Array = window.ground.elevation + window.ground.roughness
    return metres


def _land_cover(window: Window) -> Array:
    return window.truth.cover


def _vegetation_index(window: Window) -> Array:
    red, infrared = (band.astype(np.float32) for band in _bands(window.true_reflectance, "B04", "B08"))
    index: Array = (infrared - red) / (infrared + red)
    return index


def _cloud(window: Window) -> Array:
    return window.seen[0].cloud > 0


def _shadow(window: Window) -> Array:
    return window.seen[1]


@dataclass(frozen=True)
class Layer:
    """One variable of a scene: how it is made, dtype, bands, own attributes, and whether time changes it."""

    render: Callable[[Window], Array]
    dtype: str
    bands: tuple[str, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    timeless: bool = False


def _of(
    name: str, render: Callable[[Window], Array], dtype: str, *, timeless: bool = False, **attributes: Any
) -> Layer:
    bands = modalities[name].band_names
    return Layer(render, dtype, bands if len(bands) > 1 else (), tuple(attributes.items()), timeless)


_ORBIT: dict[str, Any] = {
    "platform": "sentinel-1a",
    "orbit_state": "ascending",
    "incidence_angle": INCIDENCE,
    "equivalent_number_of_looks": LOOKS,
}

LAYERS: dict[str, Layer] = {
    "S2L2A": _of("S2L2A", _level_2a, "uint16", platform="sentinel-2a"),
    "LULC": _of("LULC", _land_cover, "uint8"),
    "NDVI": _of("NDVI", _vegetation_index, "float32"),
    "S2L1C": _of("S2L1C", _level_1c, "uint16", platform="sentinel-2a"),
    "RGB": _of("RGB", _true_colour, "uint8"),
    "S1GRD": _of("S1GRD", _radar(corrected=False), "float32", backscatter="sigma0", **_ORBIT),
    "S1RTC": _of("S1RTC", _radar(corrected=True), "float32", backscatter="gamma0", **_ORBIT),
    "DEM": _of("DEM", _elevation, "float32", timeless=True),
}
"""Every modality of the world: a new one is one more entry."""

MASKS = {
    "cloud": Layer(_cloud, "bool", attributes=(("long_name", "cloud"),)),
    "shadow": Layer(_shadow, "bool", attributes=(("long_name", "shadow of a cloud, beside clouds"),)),
}
"""Truth of chosen clouds; no modalities."""


def render(window: Window, names: Iterable[str]) -> dict[str, Array]:
    """The named layers of a window; those of `MASKS` are some, too."""
    return {name: layer(name).render(window) for name in names}


def layer(name: str) -> Layer:
    """Layer of a modality or of a mask."""
    return MASKS[name] if name in MASKS else LAYERS[name]
