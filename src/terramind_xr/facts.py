"""Facts of every TerraMind modality, in one table.

Sources
-------
- Band order, pre-training mean and standard deviation, patch size, vocabularies: terratorch 1.2.11,
  ``terratorch/models/backbones/terramind/model/terramind_register.py`` and ``modality_info.py``.
- Codebooks: terratorch 1.2.11, ``tokenizer/tokenizer_register.py``.
- Sentinel-2 centre wavelengths and bandwidths: ESA Sentinel-2 MSI spectral response of Sentinel-2A
  (sentiwiki.copernicus.eu, "S2 Mission", table of spectral bands).
- Common names: STAC electro-optical extension, v2 (github.com/stac-extensions/eo).
- Land-cover classes: TerraMesh (arXiv 2504.11172); colours of the ESRI 10 m land-cover map.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from terramind_xr.errors import OptionError

PATCH = 16
"""Side of a patch, in pixels: one token stands for one patch."""

TILE = 224
"""Side of the square tile the models were trained on, in pixels."""

UNVERIFIED = "Coordinates were never tried with the released vocabulary"
"""What results that read or generate Coordinates say of themselves: their vocabulary is a file on the hub."""

RESOLUTION = 10.0
"""Ground sampling distance the models were trained on, in metres."""


@dataclass(frozen=True)
class Band:
    """One band of a modality.

    Parameters
    ----------
    name
        The agency's own name (``"B02"``, ``"VV"``).
    terratorch
        Name in terratorch's band lists (``"BLUE"``).
    common_name
        STAC common name, or None where there is none.
    wavelength, width
        Centre wavelength and bandwidth in nanometres; NaN for bands that are not optical.
    aliases
        Other names in use.

    Examples
    --------
    >>> modalities["S2L2A"].bands[1]
    Band('B02', blue, 492 nm)
    """

    name: str
    terratorch: str
    common_name: str | None = None
    wavelength: float = math.nan
    width: float = math.nan
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Every name of the band, in lower case."""
        every = (self.name, self.terratorch, self.common_name or self.name, *self.aliases)
        return frozenset(name.lower() for name in every)

    def __repr__(self) -> str:
        optical = "" if math.isnan(self.wavelength) else f", {self.wavelength:.0f} nm"
        common = f", {self.common_name}" if self.common_name else ""
        return f"Band({self.name!r}{common}{optical})"


@dataclass(frozen=True)
class LandCoverClass:
    """One class of the LULC modality: its code, name and colour (hexadecimal RGB)."""

    code: int
    name: str
    color: str


@dataclass(frozen=True)
class Modality:
    """What the models expect of a modality, and what they give back.

    Parameters
    ----------
    name
        TerraMind's own name.
    title
        What it is, in words.
    bands
        In model order.
    units
        Unit of the numbers the models were trained on (``"1"`` for none).
    valid_range
        Smallest and largest plausible value in these units.
    mean, std
        Pre-training statistics by band, in `units`.
    dtype
        dtype of a generated map.
    raw_key, token_key
        Keys of the pixel input and of the tokens in terratorch's ``MODALITY_INFO``; None where the
        released models have none.
    codebook
        Levels of the finite scalar quantizer; the vocabulary is their product.
    standard_name
        CF standard name, or None.
    nodata
        Value that means "no data" where the file does not say, or None.
    limits
        Smallest and largest value that there can be, by definition, or None.

    Examples
    --------
    >>> modalities["LULC"].vocabulary_size
    4375
    """

    name: str
    title: str
    bands: tuple[Band, ...]
    units: str
    valid_range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str = "float32"
    raw_key: str | None = None
    token_key: str | None = None
    codebook: tuple[int, ...] = ()
    standard_name: str | None = None
    nodata: float | None = None
    limits: tuple[float, float] | None = None

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, 0 for a modality without tokenizer."""
        return math.prod(self.codebook) if self.codebook else 0

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in model order."""
        return tuple(band.name for band in self.bands)

    @property
    def is_banded(self) -> bool:
        """Whether it has several bands, so that data say which is which, be only one of them read."""
        return len(modalities[self.name].bands) > 1

    def only(self, bands: Iterable[str]) -> Modality:
        """The same with some of its bands, in the order given.

        Parameters
        ----------
        bands
            By any of their names.

        Raises
        ------
        OptionError
            A name is no band's, a band is named twice, or there is none.

        Examples
        --------
        >>> modalities["S1GRD"].only(["vh"]).band_names, modalities["S2L2A"].only(["RED", "B02"]).mean
        (('VH',), (1853.91, 1503.317))
        """
        said = [str(name) for name in bands]
        where = {name: place for place, band in enumerate(self.bands) for name in band.names}
        unknown = [name for name in said if name.lower() not in where]
        places = [where[name.lower()] for name in said if name.lower() in where]
        if unknown or not places or len(set(places)) < len(places):
            raise OptionError(
                f"bands of {self.name}: found {', '.join(said) or 'none'}"
                f"{', where ' + ', '.join(unknown) + ' is unknown' if unknown else ''}; expected some of "
                f"{', '.join(self.band_names)}, none twice."
            )
        return replace(
            self,
            bands=tuple(self.bands[place] for place in places),
            mean=tuple(self.mean[place] for place in places),
            std=tuple(self.std[place] for place in places),
        )

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes of an array of this modality: names, units, and the flags of LULC."""
        attributes: dict[str, Any] = {"long_name": self.title, "units": self.units}
        if self.standard_name is not None:
            attributes["standard_name"] = self.standard_name
        if self.name == "LULC":
            attributes["flag_values"] = np.array([each.code for each in lulc_classes], self.dtype)
            attributes["flag_meanings"] = " ".join(each.name for each in lulc_classes)
        return attributes

    @property
    def is_optical(self) -> bool:
        """Whether it holds Sentinel-2 digital numbers, with their radiometric offset."""
        return self.name in ("S2L2A", "S2L1C")


_S2L1C_BANDS = (
    Band("B01", "COASTAL_AEROSOL", "coastal", 442.7, 21, ("B1", "coastal_aerosol")),
    Band("B02", "BLUE", "blue", 492.4, 66, ("B2",)),
    Band("B03", "GREEN", "green", 559.8, 36, ("B3",)),
    Band("B04", "RED", "red", 664.6, 31, ("B4",)),
    Band("B05", "RED_EDGE_1", "rededge071", 704.1, 15, ("B5", "rededge1", "re1")),
    Band("B06", "RED_EDGE_2", "rededge075", 740.5, 15, ("B6", "rededge2", "re2")),
    Band("B07", "RED_EDGE_3", "rededge078", 782.8, 20, ("B7", "rededge3", "re3")),
    Band("B08", "NIR_BROAD", "nir", 832.8, 106, ("B8",)),
    Band("B8A", "NIR_NARROW", "nir08", 864.7, 21, ("B08A", "nir_narrow")),
    Band("B09", "WATER_VAPOR", "nir09", 945.1, 20, ("B9", "water_vapour")),
    Band("B10", "CIRRUS", "cirrus", 1373.5, 31),
    Band("B11", "SWIR_1", "swir16", 1613.7, 91, ("swir1",)),
    Band("B12", "SWIR_2", "swir22", 2202.4, 175, ("swir2",)),
)
_S2L2A_BANDS = tuple(band for band in _S2L1C_BANDS if band.name != "B10")
_RGB_BANDS = (
    Band("R", "RED", "red", 664.6, 31, ("B04", "B4")),
    Band("G", "GREEN", "green", 559.8, 36, ("B03", "B3")),
    Band("B", "BLUE", "blue", 492.4, 66, ("B02", "B2")),
)
_S1_BANDS = (Band("VV", "VV"), Band("VH", "VH"))
_FSQ_16K = (8, 8, 8, 6, 5)

lulc_classes = (
    LandCoverClass(0, "no_data", "#000000"),
    LandCoverClass(1, "water", "#419bdf"),
    LandCoverClass(2, "trees", "#397d49"),
    LandCoverClass(3, "flooded_vegetation", "#7a87c6"),
    LandCoverClass(4, "crops", "#e49635"),
    LandCoverClass(5, "built", "#c4281b"),
    LandCoverClass(6, "bare", "#a59b8f"),
    LandCoverClass(7, "snow_ice", "#a8ebff"),
    LandCoverClass(8, "clouds", "#616161"),
    LandCoverClass(9, "rangeland", "#e3e2c3"),
)
"""Classes of the LULC modality; the position is the code."""

# Statistics stay in rows.
# fmt: off
_TABLE = (
    Modality(
        name="S2L2A",
        title="Sentinel-2 surface reflectance",
        bands=_S2L2A_BANDS,
        units="DN",
        valid_range=(0, 20000),
        mean=(1390.458, 1503.317, 1718.197, 1853.91, 2199.1, 2779.975, 2987.011, 3083.234, 3132.22,
              3162.988, 2424.884, 1857.648),
        std=(2106.761, 2141.107, 2038.973, 2134.138, 2085.321, 1889.926, 1820.257, 1871.918, 1753.829,
             1797.379, 1434.261, 1334.311),
        raw_key="untok_sen2l2a@224",
        token_key="tok_sen2l2a@224",
        codebook=_FSQ_16K,
        standard_name="surface_bidirectional_reflectance",
        nodata=0,
    ),
    Modality(
        name="S2L1C",
        title="Sentinel-2 top-of-atmosphere reflectance",
        bands=_S2L1C_BANDS,
        units="DN",
        valid_range=(0, 20000),
        mean=(2357.089, 2137.385, 2018.788, 2082.986, 2295.651, 2854.537, 3122.849, 3040.56, 3306.481,
              1473.847, 506.07, 2472.825, 1838.929),
        std=(1624.683, 1675.806, 1557.708, 1833.702, 1823.738, 1733.977, 1732.131, 1679.732, 1727.26,
             1024.687, 442.165, 1331.411, 1160.419),
        raw_key="untok_sen2l1c@224",
        standard_name="toa_bidirectional_reflectance",
        nodata=0,
    ),
    Modality(
        name="RGB",
        title="true colour, 8 bit",
        bands=_RGB_BANDS,
        units="1",
        valid_range=(0, 255),
        mean=(87.271, 80.931, 66.667),
        std=(58.767, 47.663, 42.631),
        raw_key="untok_sen2rgb@224",
    ),
    Modality(
        name="S1GRD",
        title="Sentinel-1 ground-range-detected backscatter",
        bands=_S1_BANDS,
        units="dB",
        valid_range=(-60, 40),
        mean=(-12.599, -20.293),
        std=(5.195, 5.890),
        raw_key="untok_sen1grd@224",
        token_key="tok_sen1grd@224",
        codebook=_FSQ_16K,
        standard_name="surface_backwards_scattering_coefficient_of_radar_wave",
    ),
    Modality(
        name="S1RTC",
        title="Sentinel-1 radiometrically terrain-corrected backscatter",
        bands=_S1_BANDS,
        units="dB",
        valid_range=(-60, 40),
        mean=(-10.93, -17.329),
        std=(4.391, 4.459),
        raw_key="untok_sen1rtc@224",
        token_key="tok_sen1rtc@224",
        codebook=_FSQ_16K,
        standard_name="surface_backwards_scattering_coefficient_of_radar_wave",
    ),
    Modality(
        name="DEM",
        title="elevation",
        bands=(Band("DEM", "DEM", aliases=("elevation", "height", "dem")),),
        units="m",
        valid_range=(-500, 9000),
        mean=(670.665,),
        std=(951.272,),
        raw_key="untok_dem@224",
        token_key="tok_dem@224",
        codebook=_FSQ_16K,
        standard_name="surface_altitude",
    ),
    Modality(
        name="LULC",
        title="land use and land cover",
        bands=(Band("LULC", "LULC"),),
        units="1",
        valid_range=(0, 9),
        mean=(0.0,),
        std=(1.0,),
        dtype="uint8",
        token_key="tok_lulc@224",
        codebook=(7, 5, 5, 5, 5),
        standard_name="area_type",
        nodata=0,
    ),
    Modality(
        name="NDVI",
        title="normalised difference vegetation index",
        bands=(Band("NDVI", "NDVI"),),
        units="1",
        valid_range=(-1, 1),
        mean=(0.327,),
        std=(0.322,),
        token_key="tok_ndvi@224",
        codebook=_FSQ_16K,
        standard_name="normalized_difference_vegetation_index",
        limits=(-1, 1),
    ),
    # Not verified: text of a vocabulary that is a file on the hub. One pair a tile, no raster.
    Modality(
        name="Coordinates",
        title="longitude and latitude of a tile",
        bands=(Band("lon", "lon"), Band("lat", "lat")),
        units="degree",
        valid_range=(-180, 180),
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        token_key="coords",
    ),
)
# fmt: on

modalities: Mapping[str, Modality] = MappingProxyType({modality.name: modality for modality in _TABLE})
"""Every modality by TerraMind's own name, read-only."""


def class_word(name: str) -> str:
    """Name of a class as one word, which is what CF's ``flag_meanings`` holds.

    Examples
    --------
    >>> class_word("non-forest"), class_word("burnt area (old)")
    ('non_forest', 'burnt_area_old')
    """
    return re.sub(r"\W+", "_", name).strip("_")


def band_dims(names: Iterable[str]) -> dict[str, str]:
    """Band dimension of each modality that has several bands, when all of `names` share a dataset.

    Examples
    --------
    >>> band_dims(["S2L2A", "DEM"]), band_dims(["S2L2A", "S1GRD"])
    ({'S2L2A': 'band'}, {'S2L2A': 'band_S2L2A', 'S1GRD': 'band_S1GRD'})
    """
    banded = [name for name in names if len(modalities[name].bands) > 1]
    return {name: "band" if len(banded) == 1 else f"band_{name}" for name in banded}
