"""Plant and soil spectra of the synthetic world beside those of PROSAIL, a radiative transfer model.

Run it as ``python benchmarks/spectra.py``, where the package ``prosail`` is installed, too.
"""

from __future__ import annotations

import numpy as np

from terramind_xr.facts import modalities
from terramind_xr.synthetic import spectra

# Centre and width of the bands of Sentinel-2A in nanometres (ESA, Sentinel-2 User Handbook)
BANDS = {
    "B01": (443, 21), "B02": (492, 66), "B03": (560, 36), "B04": (665, 31), "B05": (704, 15),
    "B06": (741, 15), "B07": (783, 20), "B08": (833, 106), "B8A": (865, 21), "B09": (945, 20),
    "B11": (1614, 91), "B12": (2202, 175),
}  # fmt: skip

# Leaf structure, chlorophyll, carotenoids (ug/cm2), brown pigment, water (cm), dry matter (g/cm2), leaf area
# index and mean leaf angle: usual values of such canopies, none of them fitted to the table
CANOPIES = {
    "crop_green": (1.5, 40, 8, 0.0, 0.015, 0.009, 4, 57),
    "crop_young": (1.5, 40, 8, 0.0, 0.012, 0.006, 1, 60),
    "crop_ripe": (2.0, 5, 5, 1.0, 0.002, 0.006, 3, 60),
    "grass_green": (1.5, 35, 8, 0.05, 0.012, 0.006, 3, 65),
    "grass_dry": (1.8, 10, 5, 0.6, 0.004, 0.006, 2, 60),
    "broadleaf": (1.7, 45, 9, 0.0, 0.012, 0.009, 5, 40),
    "conifer": (2.0, 45, 10, 0.1, 0.02, 0.02, 3, 70),
}
SOILS = {"desert": "rsoil1", "soil_peat": "rsoil2"}  # the dry and the wet soil that come with PROSAIL


def in_bands(spectrum: np.ndarray) -> np.ndarray:
    """Mean reflectance times 10,000 in each band, of a spectrum from 400 to 2500 nm in steps of one."""
    nm = np.arange(400, 2501)
    near = (abs(nm - centre) <= width / 2 for centre, width in BANDS.values())
    return np.array([1e4 * spectrum[band].mean() for band in near])


def main() -> None:
    import prosail

    assert tuple(BANDS) == modalities["S2L2A"].band_names
    print("Reflectance times 10,000: ours, and PROSPECT-D with 4SAIL (sun at 35 degrees, nadir view)")
    print(f"{'':12}{'':8}" + "".join(f"{name:>6}" for name in BANDS))
    ratios = []
    soils = {name: getattr(prosail.spectral_lib.soil, key) for name, key in SOILS.items()}
    plants = {
        name: prosail.run_prosail(
            *leaf, 0.1, 35, 0, 0, prospect_version="D", typelidf=2, rsoil=0.7, psoil=0.5
        )
        for name, leaf in CANOPIES.items()
    }
    for name, spectrum in {**plants, **soils}.items():
        ours, other = spectra.TABLE[spectra.MATERIAL[name]], in_bands(spectrum)
        ratios.append(ours / other)
        for label, numbers in (("ours", ours), ("PROSAIL", other)):
            print(f"{name:12}{label:8}" + "".join(f"{number:6.0f}" for number in numbers))
    spread = np.median(np.stack(ratios[: len(plants)]), axis=0)
    print(f"{'plants':12}{'ratio':8}" + "".join(f"{ratio:6.2f}" for ratio in spread) + "  (median)")


if __name__ == "__main__":
    main()
