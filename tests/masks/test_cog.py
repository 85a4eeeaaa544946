"""What a COG says of its pixels, read back; what is said of them by whom is with the rest of the file's tests."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from segbatch.classes import ClassTable
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.masks import CogSpec, Pyramid, read_cog_classes, tiff, write_cog, write_part
from segbatch.masks.cog import category_names, describing_fields

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

CLASSES = ClassTable(("open water", "forêt & <wood>", "bare"), ("#1f78b4", "#33a02c", "#b15928"))


def write_tiff(path: Path, colors: dict[int, tuple[int, int, int]] | None, names: list[str] | None) -> Path:
    """Somebody else's TIFF."""
    with rasterio.open(path, "w", driver="GTiff", width=4, height=4, count=1, dtype="uint8") as dataset:
        if colors is not None:
            dataset.write_colormap(1, colors)
        dataset.write(np.zeros((4, 4), np.uint8), 1)
    if names is not None:
        root = ET.Element("PAMDataset")
        categories = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
        for name in names:
            ET.SubElement(categories, "Category").text = name
        ET.ElementTree(root).write(path.with_name(f"{path.name}.aux.xml"))
    return path


@pytest.mark.parametrize("with_sidecar", [True, False])
def test_classes_come_back(tmp_path: Path, with_sidecar: bool) -> None:
    pyramid = Pyramid(70, 60, (64, 80))
    write_part(tmp_path / "parts", pyramid, Window(0, 0, 70, 60), np.zeros((60, 70), np.uint8))
    out = tmp_path / "s.tif"
    write_cog(tmp_path / "parts", out, pyramid, CogSpec.class_mask(CLASSES, None, Affine.identity(), None))
    if not with_sidecar:
        (tmp_path / "s.tif.aux.xml").unlink()
    assert read_cog_classes(out) == CLASSES


def test_a_product_has_no_class_table(tmp_path: Path) -> None:
    pyramid = Pyramid(70, 60, (64, 80), bands=3)
    write_part(tmp_path / "parts", pyramid, Window(0, 0, 70, 60), np.zeros((3, 60, 70), np.uint8))
    out = tmp_path / "s.tif"
    write_cog(tmp_path / "parts", out, pyramid, CogSpec.probabilities(CLASSES, None, Affine.identity(), None))
    assert read_cog_classes(out) is None


def test_classes_of_others_come_from_category_names_and_colours(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", {0: (0, 0, 0), 1: (31, 120, 180)}, ["", "water", "", ""])
    assert read_cog_classes(path) == ClassTable(("0", "water"), ("#000000", "#1f78b4"))


def test_classes_without_colours_get_some(tmp_path: Path) -> None:
    classes = read_cog_classes(write_tiff(tmp_path / "a.tif", None, ["land", "water"]))
    assert classes is not None
    assert classes.names == ("land", "water")
    assert len(set(classes.colors)) == 2


@pytest.mark.parametrize("names", [None, ["only one"]])
def test_a_tiff_without_class_table(tmp_path: Path, names: list[str] | None) -> None:
    assert read_cog_classes(write_tiff(tmp_path / "a.tif", {0: (1, 2, 3)}, names)) is None


def test_unusable_category_names_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", None, ["same", "same"])
    with pytest.raises(InputError, match=r"a\.tif cannot be used: Class name 'same' is given twice"):
        read_cog_classes(path)


def test_a_missing_tiff_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tif cannot be read"):
        read_cog_classes(tmp_path / "none.tif")


def test_fields_say_what_the_pixels_are() -> None:
    spec = CogSpec.class_mask(CLASSES, CRS.from_epsg(32633).to_wkt(), Affine.identity(), None)
    fields = describing_fields(spec)
    assert fields[tiff.GDAL_NODATA].data.rstrip(b"\0") == b"255"
    palette = np.frombuffer(fields[tiff.COLOR_MAP].data, "<u2").reshape(3, 256)
    np.testing.assert_array_equal(palette[:, :3].T >> 8, CLASSES.palette()[:3])
    assert tiff.COLOR_MAP not in describing_fields(CogSpec.confidence(None, Affine.identity(), None))


def test_category_names_are_gdals_xml() -> None:
    names = ET.fromstring(category_names(CLASSES)).iterfind("PAMRasterBand[@band='1']/CategoryNames/Category")
    assert [name.text for name in names] == list(CLASSES.names)
