"""The lattice of cores and the choice of their sides."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.geometry import Lattice, Window, fit_core

lattices = st.builds(
    Lattice,
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 25),
    st.integers(1, 25),
    st.integers(0, 30),
    st.booleans(),
)


@given(lattices)
def test_cores_partition_the_scene(lattice: Lattice) -> None:
    owners = np.zeros((lattice.height, lattice.width), int)
    for row in range(lattice.rows):
        for col in range(lattice.cols):
            core = lattice.core(row, col)
            assert lattice.scene.contains(core)
            owners[core.slices] += 1
    assert (owners == 1).all()


@given(lattices)
def test_cores_are_anchored_at_the_origin(lattice: Lattice) -> None:
    last = lattice.core(lattice.rows - 1, lattice.cols - 1)
    assert lattice.core(0, 0).col_off == lattice.core(0, 0).row_off == 0
    assert last.col_off == (lattice.cols - 1) * lattice.core_width
    assert last.row_off == (lattice.rows - 1) * lattice.core_height
    assert (last.col_end, last.row_end) == (lattice.width, lattice.height)


@given(lattices)
def test_a_window_sees_the_halo_or_the_border(lattice: Lattice) -> None:
    """Windows have one shape, and all the context that there is; none is larger than that takes."""
    extent = lattice.cores(0, 0, lattice.rows, lattice.cols)
    needed = [0, 0]
    for row in range(lattice.rows):
        for col in range(lattice.cols):
            window, core = lattice.window(row, col), lattice.cores(row, col)
            assert (window.height, window.width) == (lattice.window_height, lattice.window_width)
            context = core.buffered(lattice.halo).intersection(extent)
            assert context is not None
            assert window.contains(context)
            needed = [max(needed[0], context.height), max(needed[1], context.width)]
            if not lattice.uniform:
                assert extent.contains(window)
    if lattice.uniform:
        needed = [side + 2 * lattice.halo for side in (lattice.core_height, lattice.core_width)]
    elif lattice.halo <= min(lattice.core_height, lattice.core_width):
        assert [lattice.window_height, lattice.window_width] == needed
    assert lattice.window_height >= needed[0]
    assert lattice.window_width >= needed[1]


@given(lattices)
def test_windows_start_on_the_model_s_grid(lattice: Lattice) -> None:
    """Where cores and halo are multiples of the stride, so are the windows' first pixels and sides."""
    stride = math.gcd(lattice.core_height, lattice.core_width, lattice.halo)
    for row in range(lattice.rows):
        for col in range(lattice.cols):
            window = lattice.window(row, col)
            assert [side % stride for side in (window.col_off, window.row_off, window.width, window.height)] == [0] * 4


@given(lattices)
def test_waste_is_pixels_run_over_pixels_kept(lattice: Lattice) -> None:
    run = kept = 0
    for row in range(lattice.rows):
        for col in range(lattice.cols):
            run += lattice.window(row, col).area
            kept += lattice.core(row, col).area
    assert lattice.waste == pytest.approx(run / kept)


def test_waste_of_even_cores_is_the_known_ratio() -> None:
    assert Lattice(4096, 4096, 1024, 1024, 64).waste == pytest.approx((1152 / 1024) ** 2)
    assert Lattice(4096, 4096, 2048, 2048, 64).waste == pytest.approx((2112 / 2048) ** 2)
    assert Lattice(4096, 4096, 2048, 2048, 64, uniform=True).waste == pytest.approx((2176 / 2048) ** 2)
    assert Lattice(4096, 4096, 4096, 4096, 64).waste == 1


@pytest.mark.parametrize(("row", "col"), [(3, 0), (0, 4), (-1, 0), (0, -1)])
def test_a_core_outside_the_lattice_is_an_index_error(row: int, col: int) -> None:
    lattice = Lattice(width=37, height=25, core_width=10, core_height=10, halo=2)
    with pytest.raises(IndexError, match="3 x 4"):
        lattice.core(row, col)


def test_cores_are_not_clipped() -> None:
    lattice = Lattice(width=37, height=25, core_width=10, core_height=8, halo=2)
    assert lattice.cores(2, 3, rows=2, cols=1) == Window(30, 16, 10, 16)
    assert lattice.window(0, 1) == Window(8, 0, 14, 12)
    assert lattice.window(3, 3) == Window(26, 20, 14, 12)
    assert (lattice.window_width, lattice.window_height) == (14, 12)


@pytest.mark.parametrize(
    "sizes", [(0, 5, 1, 1, 0), (5, 0, 1, 1, 0), (5, 5, 0, 1, 0), (5, 5, 1, 0, 0), (5, 5, 1, 1, -1)]
)
def test_sizes_without_sense_are_refused(sizes: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Lattice(*sizes)


def candidates(side: int, stride: int) -> list[int]:
    """Every core that the axis may be cut into: one for all of it, or any multiple of the alignment."""
    align = math.lcm(stride, 512 if side >= 16384 else 32)
    single = -(-side // stride) * stride
    return [single, *range(align, single, align)]


sides = st.integers(1, 3000) | st.integers(16_000, 40_000)


@given(sides, sides, st.sampled_from([1, 2, 8, 32, 48]), st.integers(0, 5), st.integers(1, 6_000_000))
def test_no_core_is_cheaper_than_the_one_that_fits(
    width: int, height: int, stride: int, halos: int, window_pixels: int
) -> None:
    halo = halos * stride
    found = fit_core(width, height, halo=halo, stride=stride, window_pixels=window_pixels)
    rows, cols = (np.array(candidates(side, stride)) for side in (height, width))
    counts = -(-height // rows), -(-width // cols)
    longest = (window_of(rows, counts[0], halo), window_of(cols, counts[1], halo))
    windows = longest[0][:, None] * longest[1][None, :]
    fits = windows <= window_pixels
    if not fits.any():
        assert found == (rows.min(), cols.min())
        return
    run = np.where(fits, counts[0][:, None] * counts[1][None, :] * windows, np.iinfo(np.int64).max)
    best = [(abs(rows[i] - cols[j]), rows[i], cols[j]) for i, j in np.argwhere(run == run.min())]
    assert found == min(best)[1:]


def window_of(core: np.ndarray, count: np.ndarray, halo: int) -> np.ndarray:
    """Sides of windows: a halo for each side with a neighbour, and never beyond the cores."""
    return np.minimum(core * count, core + halo * np.where(count == 1, 0, np.where(count == 2, 1, 2)))


@given(sides, sides, st.sampled_from([8, 32]), st.integers(65_536, 6_000_000))
def test_fitted_cores_cover_the_scene_evenly(width: int, height: int, stride: int, window_pixels: int) -> None:
    rows, cols = fit_core(width, height, halo=64, stride=stride, window_pixels=window_pixels)
    lattice = Lattice(width, height, cols, rows, 64)
    for side, core, count in ((height, rows, lattice.rows), (width, cols, lattice.cols)):
        align = stride if count == 1 else 512 if side >= 16_384 else 32
        assert core % stride == core % align == 0
        assert count * core >= side
        assert count * core - side < count * align  # no core is larger than an even split needs


def test_fitted_cores_waste_little() -> None:
    for width, height in ((4928, 3072), (3072, 4928)):
        rows, cols = fit_core(width, height, halo=128, stride=32, window_pixels=6_000_000)
        lattice = Lattice(width, height, cols, rows, 128)
        assert lattice.window_height * lattice.window_width <= 6_000_000
        assert lattice.waste <= 1.14


@pytest.mark.parametrize(
    ("size", "window_pixels", "expected"),
    [
        ((100, 40), 1 << 20, (64, 128)),  # one window, of whole strides
        ((2048, 2048), 1 << 20, (704, 1024)),  # 3 x 2 windows beat 3 x 3
        ((2048, 1024), 1152**2, (1024, 1024)),  # as many pixels as in 1 x 2 or 2 x 1 ways, and square
        ((100_000, 100_000), 6_000_000, (2048, 2048)),  # aligned to 512
        ((500, 500), 1, (32, 32)),  # nothing fits
    ],
)
def test_fitted_cores_of_known_scenes(size: tuple[int, int], window_pixels: int, expected: tuple[int, int]) -> None:
    assert fit_core(*size, halo=64, stride=32, window_pixels=window_pixels) == expected
