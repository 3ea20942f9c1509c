"""The table of modalities: frozen, complete, and the same task names in every process."""

import dataclasses
import math
import subprocess
import sys

import pytest
from dask.base import tokenize

import terramind_xr
from terramind_xr.facts import lulc_classes, modalities


def test_every_modality_of_terramind_is_there():
    names = "S2L2A S2L1C RGB S1GRD S1RTC DEM LULC NDVI Coordinates"
    assert " ".join(modalities) == names
    assert terramind_xr.modalities is modalities


@pytest.mark.parametrize("modality", modalities.values(), ids=modalities)
def test_rows_are_complete(modality):
    assert len(modality.mean) == len(modality.std) == len(modality.bands)
    assert modality.valid_range[0] < modality.valid_range[1]
    assert len(set(modality.band_names)) == len(modality.bands)
    assert modality.raw_key or modality.token_key
    names = [name for band in modality.bands for name in band.names]
    assert len(names) == len(set(names)), "a name stands for one band only"


def test_nothing_can_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        modalities["DEM"].mean = (0.0,)
    with pytest.raises(TypeError):
        modalities["DEM"] = None


def test_sentinel2_bands_have_ascending_wavelengths_within_the_spectrum():
    wavelengths = [band.wavelength for band in modalities["S2L1C"].bands]
    assert wavelengths == sorted(wavelengths)
    assert 400 < wavelengths[0] < wavelengths[-1] < 2500
    assert math.isnan(modalities["S1GRD"].bands[0].wavelength)


def test_land_cover_codes_are_their_positions():
    assert [each.code for each in lulc_classes] == list(range(10))
    assert len({each.color for each in lulc_classes}) == len({each.name for each in lulc_classes}) == 10


@pytest.mark.slow
def test_tokens_are_the_same_in_another_process():
    code = (
        "from dask.base import tokenize; from terramind_xr.facts import modalities;"
        "print(tokenize(*modalities.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == tokenize(*modalities.values())
