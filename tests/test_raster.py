"""GeoTIFFs: what a GIS asks of one is there, memory is bounded, and only a finished file is in its place."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rioxarray
import xarray as xr
from dask.callbacks import Callback
from dask.sizeof import sizeof
from hypothesis import given, settings
from hypothesis import strategies as st

import terramind_xr
from examples import examples
from kernels import TrivialKernel
from scenes import axes, plain, single
from terramind_xr import raster
from terramind_xr.engine.cog import Raster, _Parts, _size
from terramind_xr.engine.graph import Source, map_tiles
from terramind_xr.engine.tiling import Tiling
from terramind_xr.errors import InputError, OptionError, TerramindWarning
from terramind_xr.facts import lulc_classes, modalities


def write(data, path, **options):
    return terramind_xr.to_raster(data, path, progress=False, **options)


def numbers(*shape, dtype="float32"):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def placed(values, chunks=None, dims=("y", "x"), name="map", **attrs):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    height, width = values.shape[-2:]
    array = xr.DataArray(data, dims=dims, coords=axes(height, width), name=name, attrs=attrs)
    return array.rio.write_crs(32632)


def codes(height=700, width=600, dtype="uint8"):
    """A checkerboard of the codes 1, 5 and 9, with class 0 in a corner."""
    values = np.array([1, 5, 9])[(np.add.outer(np.arange(height), np.arange(width))) % 3].astype(dtype)
    values[:100, :90] = 0
    return values


def categories(path):
    """Names of classes as GDAL reads them: rasterio does not show them, but a VRT holds them."""
    copy = path.with_suffix(".vrt")
    rasterio.shutil.copy(path, copy, driver="VRT")
    found = [each.text or "" for each in ElementTree.parse(copy).iter("Category")]
    copy.unlink()
    return found


# What a GIS asks for.


def test_a_land_cover_map_has_all_that_a_gis_asks_for(tmp_path):
    scene = terramind_xr.synthetic.scene(520, modalities=("S2L2A",), chunks=300)
    scene = scene.isel(y=slice(224))
    scene["S2L2A"] = scene.S2L2A.copy(data=scene.S2L2A.data.copy())
    scene["S2L2A"].data[..., :90] = 0  # no data
    lulc = scene.terramind.generate("LULC", model="demo")
    path = lulc.terramind.to_raster(tmp_path / "lulc.tif", progress=False)
    assert path == tmp_path / "lulc.tif"
    values = lulc.compute()
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.count, file.dtypes, file.nodata) == (1, ("uint8",), 0)
        assert file.crs == values.rio.crs
        assert file.transform == values.rio.transform()
        assert file.overviews(1) == [2]
        np.testing.assert_array_equal(file.read(1), values)
        table = file.colormap(1)
        for each in lulc_classes[1:]:
            assert "#{:02x}{:02x}{:02x}".format(*table[each.code][:3]) == each.color
        assert table[0][3] == 0
        assert file.descriptions == (lulc.attrs["long_name"],)
        assert file.tags()["terramind_model"] == "demo"
        assert file.tags()["terramind_note"] == lulc.attrs["terramind_note"]
    assert categories(path) == [each.name for each in lulc_classes]
    back = rioxarray.open_rasterio(path)
    assert back.attrs["flag_values"].tolist() == lulc.attrs["flag_values"].tolist()
    assert back.attrs["flag_meanings"] == lulc.attrs["flag_meanings"]
    again = write(back, tmp_path / "again.tif")  # a raster that was opened is written the same
    assert again.read_bytes() == path.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "again.tif", "again.tif.aux.xml", "lulc.tif", "lulc.tif.aux.xml",
    ]  # fmt: skip


def test_lulc_by_its_name_alone_is_one(tmp_path):
    data = placed(codes(30, 20), name="LULC")
    with rasterio.open(write(data, tmp_path / "map.tif")) as file:
        assert file.nodata == 0
        assert file.colormap(1)[1][:3] == (0x41, 0x9B, 0xDF)


def test_a_mask_of_one_class_is_no_map_of_classes(tmp_path):
    flags = {"flag_values": np.arange(3), "flag_meanings": "no_data water trees", "modality": "LULC"}
    lulc = placed(codes(30, 20), chunks=16, name="LULC", **flags)
    built = xr.DataArray(lulc.data == 5, lulc.coords, lulc.dims, lulc.name, lulc.attrs)
    path = write(built, tmp_path / "built.tif")
    with rasterio.open(path) as file:
        assert file.nodata is None  # false is an answer, and 1 is not water
        assert categories(path) == []
        with pytest.raises(ValueError, match="color table"):
            file.colormap(1)
        np.testing.assert_array_equal(file.read(1), lulc == 5)
        assert not {"modality", "flag_values", "flag_meanings"} & set(file.tags())


def test_other_classes_have_their_own_colours_and_names(tmp_path):
    flags = {
        "flag_values": np.array([1, 5, 9], "uint8"),
        "flag_meanings": "low mid high",
        "flag_colors": "#ff0000 #00ff00 #0000ff",
        "terramind_nodata": 255,
    }
    values = codes(30, 20)
    values[values == 0] = 255
    path = write(placed(values, **flags), tmp_path / "map.tif")
    with rasterio.open(path) as file:
        assert file.nodata == 255
        assert [file.colormap(1)[code][:3] for code in (1, 5, 9)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert categories(path) == ["", "low", "", "", "", "mid", "", "", "", "high"]
    del flags["flag_colors"]
    with rasterio.open(write(placed(values, **flags), tmp_path / "map.tif")) as file:
        colours = {file.colormap(1)[code] for code in (1, 5, 9)}
        assert len(colours) == 3
        assert (0, 0, 0, 255) not in colours


def test_bands_are_named_and_open_rasters_reads_them(tmp_path):
    order = [3, 11, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    s2 = plain("S2L2A", 40, 30).isel(band=order)
    dem = single("DEM", 40, 30, dtype="float32", units="m")
    ds = terramind_xr.open_rasters(
        {"S2L2A": write(s2, tmp_path / "s2.tif"), "DEM": write(dem, tmp_path / "dem.tif")}
    )
    assert ds.S2L2A.attrs["band_names"] == "file"
    assert ds.S2L2A.band.values.tolist() == s2.band.values.tolist()
    np.testing.assert_array_equal(ds.S2L2A, s2)
    np.testing.assert_array_equal(ds.DEM, dem)
    assert ds.DEM.attrs["units"] == "m"
    assert np.isnan(ds.DEM.attrs["_FillValue"])
    assert ds.S2L2A.attrs["_FillValue"] == 0
    chosen = s2.sel(band="B08")
    with rasterio.open(write(chosen, tmp_path / "one.tif")) as file:
        assert file.descriptions == ("B08",)


def test_probabilities_and_features_are_bands_with_names(tmp_path):
    scene = terramind_xr.synthetic.scene(224, modalities=("S2L2A",), chunks=100)
    shares = scene.terramind.generate("LULC", model="demo", probabilities=True)
    with rasterio.open(write(shares, tmp_path / "shares.tif")) as file:
        assert file.descriptions == tuple(each.name for each in lulc_classes)
        assert np.isnan(file.nodata)
        np.testing.assert_array_equal(file.read(), shares.compute())
    packed = scene.terramind.embed(model="demo", dtype="int8").compute()
    stored = packed.terramind.to_zarr(tmp_path / "e.zarr", progress=False)  # opened, it is unpacked
    assert (packed.dtype, stored.dtype.kind) == ("int8", "f")
    for each, name in ((packed, "packed"), (stored, "unpacked")):
        with rasterio.open(write(each, tmp_path / f"{name}.tif")) as file:
            assert file.dtypes == ("int8",) * 128
            assert file.nodata == -128
            assert set(file.scales) == {packed.attrs["scale_factor"]}
            assert file.descriptions[:2] == ("feature 0", "feature 1")
            np.testing.assert_array_equal(file.read(), packed)
    with pytest.raises(InputError, match=r"dimensions layer \(2\) beside feature, y, x.*da.isel\(layer=0\)"):
        write(scene.terramind.embed(model="demo", layers=[0, 1]), tmp_path / "both.tif")


def test_tokens_are_decoded_from_a_file(tmp_path):
    scene = terramind_xr.synthetic.scene(330, modalities=("DEM",), chunks=200)
    tokens = scene.terramind.tokenize("DEM", model="demo").compute()
    tokens[0, 0] = 65535
    path = write(tokens, tmp_path / "tokens.tif")
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata) == (("uint16",), 65535)
    expected = tokens.terramind.detokenize(model="demo", diffusion_steps=1)
    back = rioxarray.open_rasterio(path).terramind.detokenize(model="demo", diffusion_steps=1)
    assert back.values.tobytes() == expected.values.tobytes()
    assert back.rio.transform() == expected.rio.transform()


# Overviews.


@pytest.mark.parametrize("overviews", ["auto", "nearest", "mode"])
def test_overviews_of_classes_hold_only_codes_that_occur(overviews, tmp_path):
    path = write(placed(codes(1100, 600), name="LULC"), tmp_path / "map.tif", overviews=overviews)
    with rasterio.open(path) as file:
        assert file.overviews(1) == [2, 4]
    for level in (0, 1):
        with rasterio.open(path, overview_level=level) as file:
            assert set(np.unique(file.read(1))) == {0, 1, 5, 9}


def test_overviews_of_classes_that_were_masked_hold_only_codes_that_occur(tmp_path):
    values = np.where(codes(600, 600) == 0, np.nan, codes(600, 600)).astype("float32")  # as by lulc.where(…)
    masked = placed(values, name="LULC", flag_values=[1, 5, 9], flag_meanings="low mid high")
    with rasterio.open(write(masked, tmp_path / "map.tif"), overview_level=0) as file:
        assert set(np.unique(file.read(1)[60:])) == {1, 5, 9}


def test_overviews_average_quantities_without_no_data(tmp_path):
    values = np.where(np.arange(600) % 2, 10, 20) * np.ones((600, 1), "float32")
    values[:, :300] = np.where(np.arange(300) % 2, np.nan, 20)
    path = write(placed(values), tmp_path / "map.tif")
    with rasterio.open(path, overview_level=0) as file:
        small = file.read(1)
    assert (small[:, :150] == 20).all()
    assert (small[:, 150:] == 15).all()
    with rasterio.open(write(placed(values), path, overviews=None)) as file:
        assert file.overviews(1) == []
    # Of integers of which nothing is known, no mean is taken.
    bare = placed((values[:, 300:] > 15).astype("int16") + 1).pad(y=(0, 0), x=(0, 300), mode="wrap")
    bare = placed(np.tile(bare.values[:, :300], (1, 2)))
    with rasterio.open(write(bare, path), overview_level=0) as file:
        assert set(np.unique(file.read(1))) <= {1, 2}


def test_means_of_classes_are_refused(tmp_path):
    with pytest.raises(OptionError, match="'average', which makes new codes.*'nearest' or 'mode'"):
        write(placed(codes(), name="LULC"), tmp_path / "map.tif", overviews="average")
    assert list(tmp_path.iterdir()) == []


# Any array.


@st.composite
def arrays(draw):
    """An array of any type, cut at will, that runs any way."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    bands = draw(st.none() | st.integers(1, 3))
    dtype = draw(
        st.sampled_from(["bool", "uint8", "int8", "uint16", "int32", "float32", "float64", "float16"])
    )
    shape = (height, width) if bands is None else (bands, height, width)
    values = (numbers(*shape, dtype="int64") % 100).astype(dtype)
    dims = ("y", "x") if bands is None else ("band", "y", "x")
    array = placed(values, dims=dims)
    if 1 in (height, width):  # coordinates do not tell the size of a single pixel
        array = array.rio.write_transform(rasterio.Affine(10, 0, 499995, 0, -10, 5000005))
    order = draw(st.permutations(dims))
    cut = {dim: draw(st.integers(1, size)) for dim, size in array.sizes.items()}
    turns = [dim for dim in ("y", "x") if array.sizes[dim] > 1 and draw(st.booleans())]
    turned = array.isel({dim: slice(None, None, -1) for dim in turns}).transpose(*order)
    return array, turned.chunk(cut)


@settings(max_examples=examples(40))
@given(case=arrays())
def test_chunks_order_and_orientation_change_no_byte(case, tmp_path_factory):
    expected, given_ = case
    folder = tmp_path_factory.mktemp("raster")
    path = write(given_, folder / "lazy.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read().reshape(expected.shape), expected)
        assert file.crs == expected.rio.crs
        np.testing.assert_allclose(file.transform, expected.rio.transform())
    assert write(expected, folder / "eager.tif").read_bytes() == path.read_bytes()


def test_an_array_on_disk_is_read_in_strips(tmp_path, monkeypatch):
    data = placed(numbers(2, 1100, 40), dims=("band", "y", "x"))
    expected = write(data, tmp_path / "eager.tif").read_bytes()
    data.to_dataset().to_netcdf(tmp_path / "map.nc")
    monkeypatch.setattr(raster, "_PIECE", 2 * 4 * 40 * 300)
    read = []
    encoded = raster._encoded
    monkeypatch.setattr(raster, "_encoded", lambda each, to: read.append(each.shape[-2]) or encoded(each, to))
    with xr.open_dataset(tmp_path / "map.nc", decode_coords="all") as ds:
        path = write(ds["map"], tmp_path / "disk.tif")
    assert read == [0, 256, 256, 256, 256, 76]
    assert path.read_bytes() == expected


def test_a_transform_that_was_told_is_kept_to_the_last_bit(tmp_path):
    transform = rasterio.Affine(0.1 / 3, 0, 7 / 9, 0, -0.1 / 7, 50 / 3)
    options = {"crs": "EPSG:4326", "transform": transform, "dtype": "uint8", "count": 1}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=9, width=7, **options) as file:
        file.write(np.ones((1, 9, 7), "uint8"))
    given_ = rioxarray.open_rasterio(tmp_path / "a.tif")
    with rasterio.open(write(given_, tmp_path / "b.tif")) as file:
        assert file.transform == transform
    with rasterio.open(write(given_.isel(y=slice(2, None)), tmp_path / "b.tif")) as file:  # told no more
        assert file.transform.f == pytest.approx(transform.f + 2 * transform.e)


def test_without_a_place_it_is_written_with_a_warning(tmp_path):
    bare = xr.DataArray(numbers(5, 4), dims=("y", "x"), name="map")
    with pytest.warns(TerramindWarning, match=r"no coordinates.*assign_coords.*no CRS.*write_crs"):
        path = write(bare, tmp_path / "map.tif")
    with rasterio.open(path) as file:
        assert file.crs is None
        np.testing.assert_array_equal(file.read(1), bare)
    with pytest.warns(TerramindWarning, match=r"no CRS") as caught:
        write(bare.assign_coords(axes(5, 4)), path)
    assert "no coordinates" not in str(caught[0].message)
    counted = bare.rename(y="row", x="col").assign_coords(row=range(5), col=range(4))
    with pytest.warns(TerramindWarning, match=r"no coordinates"):
        path = write(counted, path)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), bare)


def test_a_place_that_the_grid_mapping_alone_tells(tmp_path):
    bare = xr.DataArray(numbers(5, 4), dims=("y", "x"), name="map").rio.write_crs(32632)
    north_up = rasterio.Affine(10, 0, 500, 0, -10, 900)
    with rasterio.open(write(bare.rio.write_transform(north_up), tmp_path / "map.tif")) as file:
        assert file.transform == north_up
        np.testing.assert_array_equal(file.read(1), bare)
    south_up = rasterio.Affine(10, 0, 500, 0, 10, 850)
    with rasterio.open(write(bare.rio.write_transform(south_up), tmp_path / "map.tif")) as file:
        assert file.transform == north_up
        np.testing.assert_array_equal(file.read(1), bare[::-1])
    turned = rasterio.Affine(10, 3, 500, 3, -10, 900)
    with rasterio.open(write(bare.rio.write_transform(turned), tmp_path / "map.tif")) as file:
        assert file.transform == turned
        np.testing.assert_array_equal(file.read(1), bare)


def test_degrees_are_places_too(tmp_path):
    data = xr.DataArray(
        numbers(5, 4), dims=("lat", "lon"), coords={"lat": np.arange(5) + 40.5, "lon": np.arange(4) + 8.5}
    )
    with rasterio.open(write(data.rio.write_crs(4326), tmp_path / "map.tif")) as file:
        assert file.transform == rasterio.Affine(1, 0, 8, 0, -1, 45)
        np.testing.assert_array_equal(file.read(1), data[::-1])


def test_one_date_is_written_and_several_are_refused(tmp_path):
    times = np.array(["2024-05-01", "2024-06-01"], "datetime64[ns]")
    series = placed(numbers(2, 5, 4), dims=("time", "y", "x")).assign_coords(time=times)
    with pytest.raises(InputError, match=r"map: found the dimensions time \(2\).*da.isel\(time=0\)"):
        write(series, tmp_path / "map.tif")
    for one in (series.isel(time=1), series.isel(time=[1])):
        with rasterio.open(write(one, tmp_path / "map.tif")) as file:
            np.testing.assert_array_equal(file.read(1), series[1])
    with rasterio.open(write(series.isel(time=1), tmp_path / "map.tif")) as file:
        assert file.tags()["time"].startswith("2024-06-01")
    dates = series.rename(time="date")
    with pytest.raises(InputError, match=r"date \(2\)"):
        write(dates, tmp_path / "map.tif")
    with pytest.raises(InputError, match=r"found the dimensions time \(2\) beside band, y, x"):
        write(series.expand_dims(band=["B02", "B03"]), tmp_path / "map.tif")


def test_what_cannot_be_a_raster_is_told(tmp_path):
    path = tmp_path / "map.tif"
    data = placed(numbers(5, 4))
    with pytest.raises(InputError, match=r"found Dataset.*ds\['map'\]"):
        data.to_dataset().terramind.to_raster(path)
    with pytest.raises(InputError, match="map: found dtype datetime64.*expected numbers"):
        write(data.astype("datetime64[ns]"), path)
    with pytest.raises(InputError, match="map: found no pixel"):
        write(data[:0], path)
    with pytest.raises(InputError, match="spacing along 'x'.*equal steps.*to_zarr"):
        write(data.assign_coords(x=[0.0, 10.0, 50.0, 60.0]), path)
    with pytest.raises(InputError, match="two spatial ones"):
        write(data.rename(y="a", x="b").drop_vars(["a", "b"]), path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["s3://bucket/map.tif", "/vsimem/map.tif", 5, None])
def test_a_path_that_is_no_local_file_is_told(path):
    with pytest.raises(OptionError, match="expected a local file"):
        write(placed(numbers(5, 4)), path)


def test_options_and_places_that_cannot_be_are_told(tmp_path):
    data = placed(numbers(5, 4))
    with pytest.raises(OptionError, match="is the folder"):
        write(data, tmp_path)
    with pytest.raises(OptionError, match="cannot be written.*folder that exists"):
        write(data, tmp_path / "none" / "map.tif")
    with pytest.raises(OptionError, match="overviews is 'best'; expected one of 'auto'"):
        write(data, tmp_path / "map.tif", overviews="best")
    with pytest.raises(OptionError, match="compress is 'jpeg'; expected one of 'deflate'"):
        write(data, tmp_path / "map.tif", compress="jpeg")
    huge = xr.DataArray(da.zeros((10**7, 10**7), chunks=10**6), dims=("y", "x"), name="map")
    with (
        pytest.warns(TerramindWarning, match="no CRS"),
        pytest.raises(OptionError, match="GiB beside it.*larger disk"),
    ):
        write(huge, tmp_path / "map.tif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [">f4", ">i2"])
def test_numbers_of_the_other_byte_order_are_written(dtype, tmp_path):
    values = numbers(30, 20, dtype=dtype)  # as netCDF 3 gives them
    for chunks in (None, 16):
        with rasterio.open(write(placed(values, chunks), tmp_path / "map.tif")) as file:
            np.testing.assert_array_equal(file.read(1), values)


def test_no_data_that_the_type_cannot_hold_is_none(tmp_path):
    data = placed(codes(30, 20), _FillValue=-9999, units="1")
    with rasterio.open(write(data, tmp_path / "map.tif")) as file:
        assert file.nodata is None
    kept = placed(numbers(30, 20), _FillValue=-9999.0)
    with rasterio.open(write(kept, tmp_path / "map.tif")) as file:
        assert file.nodata == -9999


@pytest.mark.parametrize("compress", ["zstd", "lzw", None])
def test_other_compressions_keep_the_values(compress, tmp_path):
    data = placed(numbers(600, 500), chunks=200)
    with rasterio.open(write(data, tmp_path / "map.tif", compress=compress)) as file:
        assert file.compression is (None if compress is None else rasterio.enums.Compression[compress])
        np.testing.assert_array_equal(file.read(1), data)


# Only a finished file is in its place.


def test_a_failing_block_leaves_what_was_there(tmp_path):
    def fail(block, block_info=None):
        if block_info[0]["chunk-location"] == (2, 1):
            raise ValueError("no such pixels")
        return block + 1

    before = write(placed(codes(30, 20), name="LULC"), tmp_path / "map.tif")
    kept, names = before.read_bytes(), sorted(tmp_path.iterdir())
    data = da.zeros((60, 400), chunks=20).map_blocks(fail, dtype=float)
    array = placed(numbers(60, 400)).copy(data=data)
    with dask.config.set(scheduler="threads", num_workers=4), pytest.raises(ValueError, match="no such"):
        write(array, before)
    assert before.read_bytes() == kept
    assert sorted(tmp_path.iterdir()) == names
    write(placed(numbers(30, 20)), before)
    assert list(tmp_path.iterdir()) == [before]  # without the names of the classes that were there


KILLED = """
import sys, time
from pathlib import Path
import dask, dask.array as da, xarray as xr
from terramind_xr import to_raster

def wait(block, block_info=None):
    if block_info[0]["chunk-location"] == (2, 1):
        Path(sys.argv[1], "waits").touch()
        time.sleep(600)
    return block + 1

data = da.zeros((60, 40), chunks=20).map_blocks(wait, dtype=float)
axes = {"y": range(60, 0, -1), "x": range(40)}
array = xr.DataArray(data, dims=("y", "x"), coords=axes, name="map").rio.write_crs(32632)
with dask.config.set(num_workers=2):
    to_raster(array, Path(sys.argv[1], "map.tif"), progress=False)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_no_target(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import rioxarray" + KILLED, str(tmp_path)])
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "waits").exists() and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = [each.name for each in tmp_path.iterdir() if each.name != "waits"]
    assert len(left) == 1
    assert left[0].startswith(".map.tif.")
    assert left[0].endswith(".unfinished")


FULL = """
import resource, signal, sys
import numpy as np, rioxarray, xarray as xr
from terramind_xr import to_raster
values = np.random.default_rng(0).integers(1, 9, (2000, 2000)).astype("uint8")
axes = {"y": range(2000, 0, -1), "x": range(2000)}
array = xr.DataArray(values, dims=("y", "x"), coords=axes, name="map").rio.write_crs(32632).chunk(700)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    to_raster(array, sys.argv[1], compress=None, progress=False)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("limit", "said"), [(2_000_000, "blocks are missing"), (4_250_000, "could not be written whole")]
)
def test_a_full_disk_is_an_error(limit, said, tmp_path):
    """The first limit is met by the blocks, the second, beyond their 4,194,304 bytes, by the overviews."""
    run = [sys.executable, "-c", FULL, str(tmp_path / "map.tif"), str(limit)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OptionError")
    assert said in done.stdout
    assert list(tmp_path.iterdir()) == []


# Memory.


def peak_memory(rows, path):
    """Bytes of data that tasks hold at the worst moment of a run over a scene."""
    source = da.ones((4, rows, 1000), chunks=(4, 200, 310), dtype="float32") + 1
    tiling = Tiling.of((rows, 1000), overlap=32, block=2)
    result = map_tiles([Source(source)], TrivialKernel("identity", 4), tiling)[0]
    data = xr.DataArray(result, dims=("band", "y", "x"), coords=axes(rows, 1000), name="map")
    peak = 0

    def look(key, value, dsk, state, worker):
        nonlocal peak
        peak = max(peak, sum(map(sizeof, state["cache"].values())))

    with Callback(posttask=look), dask.config.set(scheduler="sync", num_workers=2):
        write(data.rio.write_crs(32632), path, overviews=None)
    return peak


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_scene(tmp_path):
    short, long = (peak_memory(rows, tmp_path / "map.tif") for rows in (4800, 14_400))
    assert long < 2 * short
    assert long < 4 * 14_400 * 1000 * 4 / 2


# Elsewhere than in threads.


def double(block):
    return block * 2


@pytest.mark.parametrize("kind", [pytest.param("processes", marks=pytest.mark.slow), "cluster"])
def test_other_processes_compute_and_this_one_writes(kind, tmp_path):
    data = placed(numbers(2, 700, 500), chunks=(1, 300, 200), dims=("band", "y", "x"))
    data = data.copy(data=data.data.map_blocks(double))
    expected = write(data, tmp_path / "threads.tif").read_bytes()
    if kind == "processes":
        with dask.config.set(scheduler="processes", num_workers=2):
            path = write(data, tmp_path / "map.tif")
    else:
        from distributed import Client, LocalCluster

        options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options) as cluster, Client(cluster):
            path = write(data, tmp_path / "map.tif")
    assert path.read_bytes() == expected
    assert len(list(tmp_path.iterdir())) == 2


def test_workers_that_do_not_see_the_folder_say_so(tmp_path):
    parts = _Parts(tmp_path / "elsewhere", Path("/maps/map.tif"))
    with pytest.raises(OptionError, match="does not see the folder of '/maps/map.tif'.*to_zarr"):
        parts.put(numbers(2, 2), (slice(0, 2), slice(0, 2)))


def test_the_size_is_that_of_whole_tiles():
    assert _size(Raster((3, 257, 256), "uint16", None, None, None)) == 3 * 2 * 256 * 256 * 2


def test_every_class_of_lulc_is_named_once():
    assert [each.code for each in lulc_classes] == modalities["LULC"].attributes["flag_values"].tolist()
