"""The procedural world: climate and relief, then land cover, then the materials that cover each pixel.

Later layers paint over earlier ones: open land, forest, farmland, settlements, water, heights, clouds.
The land-cover codes are those of `terramind_xr.lulc_classes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terramind_xr.synthetic.fields import Bits, Float, uniform
from terramind_xr.synthetic.phenology import CROPS as CROPS_GROWN
from terramind_xr.synthetic.phenology import crops, drought, sun, winter
from terramind_xr.synthetic.spectra import MATERIAL
from terramind_xr.synthetic.survey import Place, survey
from terramind_xr.synthetic.terrain import illumination

WATER, TREES, FLOODED, CROPS, BUILT, BARE, SNOW, CLOUDS, RANGELAND = range(1, 10)


@dataclass(frozen=True)
class Surface:
    """What covers each pixel of a window; every field is (y, x).

    Parameters
    ----------
    cover
        Land-cover code, uint8.
    first, second
        Numbers of the two materials of the pixel, uint8 (`spectra.MATERIAL`).
    mix
        Share of the second material, 0 to 1.
    shade
        Illumination factor, about 1.
    tone, tilt
        Brightness and spectral slope against what is usual for the materials, about -1 to 1.
    haze
        0 (clear) to 1.
    cloud
        Opacity of clouds, 0 (none) to 1.
    elevation, slope_east
        Metres, level on waters, and their rise towards the east, metres per metre.
    roughness
        Metres of the ground above `elevation`: small unevenness, none on water.
    water
        Whether water covers a pixel, bool.
    texture
        Smallest unevenness, standard deviation about 0.7.
    cloudiness
        The field whose peaks are the world's own clouds.
    """

    cover: NDArray[np.uint8]
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    mix: Float
    shade: Float
    tone: Float
    tilt: Float
    haze: Float
    cloud: Float
    elevation: Float
    slope_east: Float
    roughness: Float
    water: NDArray[np.bool_]
    texture: Float
    cloudiness: Float


def surface(seed: int, day: int, y: int, x: int, height: int, width: int) -> Surface:
    """Land cover and materials of the window whose first pixel is row `y`, column `x` of the world.

    They are those of `day`, in days since 1970.

    Examples
    --------
    >>> surface(0, 19_905, 0, 0, 4, 6).cover.shape
    (4, 6)
    """
    clear = ground(seed, day, y, x, height, width)
    return overcast(clear, clear.cloudiness - np.float32(1.15))


def ground(seed: int, day: int, y: int, x: int, height: int, width: int) -> Surface:
    """The surface without clouds."""
    place = survey(seed, day, y, x, height, width)
    canvas = _Canvas((height, width))
    _paint_open_land(canvas, place, day)
    _paint_forest(canvas, place)
    _paint_farmland(canvas, place, day)
    _paint_settlements(canvas, place)
    _paint_water(canvas, place)
    _paint_heights(canvas, place, day)
    shade = illumination(place.slope_south, place.slope_east, *sun(day)) + np.float32(0.035) * place.grain
    cells = place.parcel, place.block
    parcel, block = (uniform(cell.bits) * np.float32(2) - np.float32(1) for cell in cells)
    field = np.float32(0.5) * place.tone + np.float32(0.6) * parcel
    tone = np.where(canvas.cover == CROPS, field, np.where(canvas.cover == BUILT, block, place.tone))
    return Surface(
        cover=canvas.cover,
        first=canvas.first,
        second=canvas.second,
        mix=np.clip(canvas.mix, 0, 1),
        shade=shade,
        tone=tone,
        tilt=place.tilt,
        haze=np.clip(np.float32(0.30) * place.haze - np.float32(0.1), 0, 1),
        cloud=np.zeros_like(shade),
        elevation=place.elevation,
        slope_east=place.slope_east,
        roughness=_roughness(place),
        water=canvas.cover == WATER,
        texture=place.texture,
        cloudiness=place.cloud,
    )


def _roughness(place: Place) -> Float:
    """Microrelief in metres: it grows with the height, and ends where water begins."""
    size = np.float32(1) + np.float32(0.004) * np.minimum(place.elevation, np.float32(1000))
    ashore = np.minimum(place.river * np.float32(1 / 10), (place.lake - np.float32(1)) * np.float32(2))
    inland: Float = np.clip(np.minimum(ashore, place.shore * np.float32(1 / 5)), 0, 1)
    return size * inland * place.patch


def overcast(clear: Surface, excess: Float) -> Surface:
    """A surface below clouds where `excess` is positive, the thicker the larger."""
    cloud = excess > 0
    opacity = np.clip(excess * np.float32(2.5), 0, 1)
    canvas = _Canvas(cloud.shape)
    canvas.cover, canvas.mix = clear.cover.copy(), clear.mix.copy()
    canvas.first, canvas.second = clear.first.copy(), clear.second.copy()
    canvas.paint(cloud, CLOUDS, "cloud_thin", "cloud_thick", opacity)
    return replace(
        clear,
        cover=canvas.cover,
        first=canvas.first,
        second=canvas.second,
        mix=canvas.mix,
        shade=np.where(cloud, np.float32(1) + np.float32(0.03) * clear.texture, clear.shade),
        cloud=np.where(cloud, np.float32(0.3) + np.float32(0.7) * opacity, np.float32(0)),
    )


class _Canvas:
    """The layers painted so far."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.cover = np.full(shape, RANGELAND, np.uint8)
        self.first = np.zeros(shape, np.uint8)
        self.second = np.zeros(shape, np.uint8)
        self.mix = np.zeros(shape, np.float32)

    def paint(
        self,
        where: NDArray[np.bool_],
        cover: int | None,
        first: NDArray[np.uint8] | str,
        second: NDArray[np.uint8] | str,
        mix: Float | float,
    ) -> None:
        """Cover `where` with two materials; `cover` None keeps the land-cover code."""
        if cover is not None:
            np.copyto(self.cover, np.uint8(cover), where=where)
        for layer, material in ((self.first, first), (self.second, second)):
            number = np.uint8(MATERIAL[material]) if isinstance(material, str) else material
            np.copyto(layer, number, where=where)
        np.copyto(self.mix, np.float32(mix) if isinstance(mix, float) else mix, where=where)


def _pick(bits: Bits, shift: int, *materials: str) -> NDArray[np.uint8]:
    """One of the materials by eight of the random bits of a cell."""
    options = np.array([MATERIAL[material] for material in materials], np.uint8)
    chosen: NDArray[np.uint8] = options.take(((bits >> np.uint32(shift)) & np.uint32(0xFF)) % len(options))
    return chosen


def _between(value: Float, *materials: str, low: float = -1.2, high: float = 1.2) -> NDArray[np.uint8]:
    """One of the materials, ordered along a smooth field."""
    options = np.array([MATERIAL[material] for material in materials], np.uint8)
    scale = np.float32(len(options) / (high - low))
    position = np.clip((value - np.float32(low)) * scale, 0, len(options) - 1)
    chosen: NDArray[np.uint8] = options.take(position.astype(np.intp))
    return chosen


def _dryness(place: Place) -> Float:
    return np.float32(0.45) * place.heat - np.float32(0.9) * place.moisture


def _paint_open_land(canvas: _Canvas, place: Place, day: int) -> None:
    dry = _dryness(place) + np.float32(0.12) * place.patch
    everywhere = np.ones(dry.shape, bool)
    mix = np.float32(0.5) + np.float32(0.3) * place.patch + np.float32(0.1) * place.texture
    green = _between(place.heat, "heath", "shrub", "grass_green", "shrub")
    withered = dry + np.float32(drought(day))
    grass = _between(withered, "grass_green", "grass_dry", "savanna")
    canvas.paint(everywhere, RANGELAND, green, grass, mix)
    arid = dry > 0.4
    canvas.paint(
        arid,
        RANGELAND,
        "savanna",
        _between(place.forest, "grass_dry", "shrub", "soil_red"),
        np.float32(0.4) + np.float32(0.2) * place.patch,
    )
    bare = dry > np.float32(0.85)
    ground = _between(place.forest, "desert", "soil_red", "rock_grey", "sand", "gravel", "rock_dark")
    canvas.paint(
        bare,
        BARE,
        ground,
        _between(place.rock, "desert", "soil_brown", "rock_grey", "sand"),
        np.float32(0.4) + np.float32(0.25) * place.patch,
    )


def _paint_forest(canvas: _Canvas, place: Place) -> None:
    suit = place.forest + np.float32(0.5) * place.moisture - np.float32(0.25) * np.abs(place.heat)
    wood = suit > np.float32(0.3)
    mild = _between(
        place.heat + np.float32(0.4) * place.patch,
        "conifer",
        "conifer",
        "broadleaf",
        "broadleaf",
        "evergreen",
    )
    other = _between(
        place.moisture + np.float32(0.3) * place.patch, "forest_dry", "broadleaf", "conifer", "evergreen"
    )
    canvas.paint(wood, TREES, mild, other, np.float32(0.35) + np.float32(0.25) * place.texture)


_SOILS = ("soil_peat", "soil_dark", "soil_brown", "soil_brown", "soil_red", "soil_chalk")


def _of_region(material: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
    """Materials with the brown soil replaced by that of the region."""
    soil = _between(place.rock, *_SOILS)
    return np.where(material == np.uint8(MATERIAL["soil_brown"]), soil, material)


def _paint_farmland(canvas: _Canvas, place: Place, day: int) -> None:
    bits = place.parcel.bits
    chance = uniform(bits)
    suit = place.farming - np.float32(0.25) * place.forest - np.float32(0.35) * place.height
    suit = suit + np.float32(0.9) * (chance - np.float32(0.5))
    farm = (suit > 0.12) & (_dryness(place) < 1.15) & (place.heat > -1.3) & (place.height < 1.1)
    crop = ((bits >> np.uint32(3)) & np.uint32(0xFF)) % np.uint32(CROPS_GROWN)
    late = np.float32(50) * uniform(bits << np.uint32(7)) - np.float32(25) - np.float32(15) * place.heat
    stage = crops(day, crop, late + np.float32(5) * place.patch)
    mix = stage.mix + np.float32(0.08) * place.texture + np.float32(0.08) * place.patch
    canvas.paint(farm, CROPS, _of_region(stage.first, place), _of_region(stage.second, place), mix)
    share = uniform(bits << np.uint32(7)) * np.float32(0.7)
    kind = (bits >> np.uint32(24)) % np.uint32(16)
    meadow = farm & (kind == 0)
    canvas.paint(meadow, RANGELAND, "grass_green", "grass_dry", share)
    grove = farm & (kind == 1)
    canvas.paint(grove, TREES, _pick(bits, 5, "broadleaf", "conifer", "evergreen"), "forest_dry", share)
    hedge = farm & (place.parcel.border < 0.9) & ((bits & np.uint32(0x30)) == 0)
    canvas.paint(hedge, None, "shrub", "grass_green", 0.5)


def _paint_settlements(canvas: _Canvas, place: Place) -> None:
    town, block = place.town, place.block
    chance = uniform(town.bits)
    radius = 18 + 70 * chance * chance + 22 * np.clip(place.urban, -1.2, 1.5)
    radius = np.where((town.bits & np.uint32(7)) < 3, radius, radius * np.float32(0.55))
    edge = town.distance + np.float32(7) * place.patch - radius
    habitable = (place.height < 1.15) & (_dryness(place) < 1.7) & (place.heat > -1.9)
    city = habitable & ((edge < 0) | (place.urban + np.float32(0.2) * place.patch > 1.75))
    first = _pick(
        block.bits,
        2,
        "roof_tile",
        "roof_grey",
        "roof_dark",
        "concrete",
        "roof_tile",
        "roof_dark",
        "roof_bright",
        "roof_metal",
        "gravel",
        "garden",
    )
    paved = ("asphalt", "garden", "concrete", "asphalt_new", "garden", "roof_dark")
    second = _pick(block.bits, 10, *paved)
    dense = np.clip(np.float32(0.55) + edge * np.float32(0.012), 0.15, 0.8)
    canvas.paint(city, BUILT, first, second, dense + np.float32(0.2) * place.texture)
    street = city & (block.border < 0.8)
    canvas.paint(street, None, "asphalt", "garden", np.float32(0.3) + np.float32(0.2) * place.patch)
    works = city & ((place.parcel.bits & np.uint32(0xF0000)) == 0)
    canvas.paint(
        works,
        None,
        _pick(place.parcel.bits, 5, "roof_bright", "roof_grey", "roof_metal", "concrete"),
        "asphalt",
        np.float32(0.3) + np.float32(0.25) * place.texture,
    )
    park = city & ((place.parcel.bits & np.uint32(0xF00000)) == 0)
    canvas.paint(park, TREES, "broadleaf", "grass_green", np.float32(0.3) + np.float32(0.2) * place.texture)
    road = (town.border < 1.3) & habitable & (place.urban > -0.5)
    canvas.paint(road, BUILT, "asphalt", "concrete", 0.3)


def _is_lake(place: Place) -> NDArray[np.bool_]:
    lake: NDArray[np.bool_] = place.lake < 1
    return lake


def _is_sea(place: Place) -> NDArray[np.bool_]:
    sea: NDArray[np.bool_] = (place.shore < 0) & ~_is_lake(place)
    return sea


def _paint_water(canvas: _Canvas, place: Place) -> None:
    flat = place.height < 1.0
    shore, river, lake = place.shore, place.river < 0, _is_lake(place)
    marshy = np.float32(3) + np.float32(2) * np.clip(place.marsh, -1, 2)
    wet = (shore < 25) | (place.river < marshy) | (place.lake < 1.2)
    fen = wet & flat & (place.marsh + np.float32(0.35) * place.moisture > 0.15) & (place.heat > -1.4)
    fen |= flat & (place.marsh > 1.45) & (place.moisture > 0.3)
    plants = _between(place.heat + np.float32(0.4) * place.patch, "reed", "swamp", "mangrove")
    canvas.paint(
        fen,
        FLOODED,
        plants,
        _between(place.patch, "swamp", "water_dark", "reed", "water_green"),
        np.float32(0.4) + np.float32(0.2) * place.texture,
    )
    beach = (shore < 6) & (place.marsh < -0.3) & ~lake
    canvas.paint(beach, BARE, "sand", _between(place.forest, "rock_grey", "desert", "soil_brown"), 0.3)
    # In dry country the water does not fill the bed.
    canvas.paint(river, BARE, "sand", "soil_brown", np.float32(0.4) + np.float32(0.2) * place.texture)
    stream = place.river < np.float32(-2.5) * np.clip(_dryness(place) - np.float32(0.5), 0, 2)
    river_kind = _between(place.forest, "water_turbid", "water_green", "water_dark")
    canvas.paint(river & stream, WATER, river_kind, "water_green", 0.4)
    lake_kind = _between(place.heat, "water_clear", "water_dark", "water_green", "water_turbid")
    canvas.paint(lake, WATER, lake_kind, "water_dark", np.float32(0.3) + np.float32(0.2) * place.moisture)
    depth = np.clip(shore * np.float32(-1 / 64) + np.float32(0.1) * place.moisture, 0, 1)
    near = _between(place.marsh + place.forest, "water_clear", "water_green", "water_turbid", "water_glint")
    deep = _between(place.heat, "water_dark", "water_clear", "water_dark", "water_glint")
    canvas.paint(_is_sea(place), WATER, near, deep, depth)


def _paint_heights(canvas: _Canvas, place: Place, day: int) -> None:
    land = canvas.cover != WATER
    cold = place.height - np.float32(0.75) * place.heat + np.float32(0.12) * place.patch
    rocky = land & (place.height + np.float32(0.25) * place.patch > 1.35) & (place.forest < 0.9)
    canvas.paint(
        rocky,
        BARE,
        _between(place.rock, "rock_grey", "rock_dark", "soil_brown"),
        _between(place.moisture, "rock_grey", "heath", "rock_dark"),
        np.float32(0.35) + np.float32(0.2) * place.texture,
    )
    cold = cold + np.float32(0.9 * winter(day))
    snow = land & (cold + np.float32(0.6) * place.slope_south > 1.85)
    canvas.paint(
        snow,
        SNOW,
        _between(cold, "snow_old", "snow_fresh", low=1.5, high=3.0),
        _between(place.patch, "snow_fresh", "snow_old", "ice", "rock_grey"),
        np.float32(0.3) + np.float32(0.2) * place.texture,
    )
