"""Fixtures shared by all tests."""

import os
import subprocess
import sys
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Read when Ray is imported: without it Ray would build an environment for its workers from uv's.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

# Small tensors on shared cores: threads that wait for each other would take minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import settings
from numpy.typing import NDArray
from rasterio.drivers import driver_from_extension
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

# Machines differ, so no example may fail for being slow.
settings.register_profile("segbatch", deadline=None, print_blob=True)
settings.load_profile("segbatch")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real labelled images; tests that need it are skipped where it is absent."""
    named = os.environ.get("SEGBATCH_TEST_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set SEGBATCH_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def make_raster() -> Callable[..., str]:
    """A function that writes a raster and returns its path as a string; see `_write_raster`."""
    return _write_raster


_SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of a bucket in an object store on this machine, which the environment names for all processes from then on.

    Its server is a process of its own: libraries wait for it with Python's lock held.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")):
            pass
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("AWS_ENDPOINT_URL", endpoint)
            patched.setenv("AWS_ACCESS_KEY_ID", "planted-key-id")
            patched.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-key")
            patched.setenv("AWS_REGION", "us-east-1")
            yield "s3://bucket"
        server.terminate()


@pytest.fixture
def remote(bucket: str) -> str:
    """URL of a place in the bucket that is a test's own."""
    return f"{bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def ray_cluster(bucket: str) -> Iterator[None]:
    """One Ray for all tests of a run. Its workers know the object store."""
    import ray

    from segbatch.runtime import keeping_processes

    if not ray.is_initialized():
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _system_config=keeping_processes(4))
    yield
    ray.shutdown()


def _write_raster(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    *,
    crs: Any = None,
    transform: Affine | None = None,
    nodata: float | None = None,
    names: Sequence[str] | None = None,
    colorinterp: Sequence[ColorInterp | str] | None = None,
    mask: NDArray[np.bool_] | None = None,
    driver: str | None = None,
    **profile: Any,
) -> str:
    """Write a raster.

    Args:
        path: Target; folders above it are made.
        array: (bands, height, width), or (height, width) for a single band.
        crs: Anything that rasterio takes.
        transform: From (column, row) to CRS units.
        nodata: Fill value.
        names: One a band.
        colorinterp: One a band, as rasterio's enum or its name ("alpha").
        mask: (height, width), True = a real pixel; written inside the file.
        driver: GDAL's name of the format; by the path's ending when None.
        profile: More creation options, such as tiled, blockxsize and compress.
    """
    bands = array[np.newaxis] if array.ndim == 2 else array
    count, height, width = bands.shape
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver=driver or driver_from_extension(str(path)),
            width=width,
            height=height,
            count=count,
            dtype=bands.dtype.name,
            crs=crs,
            transform=transform,
            nodata=nodata,
            **profile,
        ) as dataset:
            if colorinterp is not None:
                dataset.colorinterp = [ColorInterp[kind] if isinstance(kind, str) else kind for kind in colorinterp]
            if names is not None:
                dataset.descriptions = tuple(names)
            dataset.write(bands)
            if mask is not None:
                dataset.write_mask(mask)
    return str(path)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small untrained network: 3 bands of uint8, 4 classes, stride 8, halo 16."""
    import torch

    from segbatch.classes import ClassTable, LabelMap
    from segbatch.models.build import build_model, model_stride
    from segbatch.models.bundle import Bundle, save_bundle
    from segbatch.models.card import Card

    torch.manual_seed(0)
    model = build_model(
        "unet", "resnet18", in_channels=3, num_classes=4, options={"encoder_depth": 3, "decoder_channels": [16, 16, 8]}
    )
    classes = ClassTable.from_items([("water", "#1f78b4"), ("forest", None), ("field", None), ("town", None)])
    card = Card(
        classes=classes,
        band_names=("", "", ""),
        dtype="uint8",
        mean=(100.0, 110.0, 90.0),
        std=(50.0, 60.0, 40.0),
        stride=model_stride(model),
        halo=16,
        label_map=LabelMap(4),
    )
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    save_bundle(folder, Bundle(model, card))
    return folder


@pytest.fixture(scope="session")
def paint() -> Callable[..., NDArray[np.uint8]]:
    """A function (height, width, seed) that makes an image (3, height, width) uint8 without the value 0."""
    return _paint


def _paint(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Soft stripes and noise, so that an untrained network tells more than one class."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices((height, width))
    waves = [np.sin(rows / (9 + 4 * band) + seed) + np.cos(cols / (13 - 3 * band)) for band in range(3)]
    noise = rng.normal(0, 12, (3, height, width))
    return np.clip(120 + 50 * np.stack(waves) + noise, 1, 255).astype(np.uint8)
