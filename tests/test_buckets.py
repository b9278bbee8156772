"""Photos are cut to the nearest of a few shapes, and never through the face."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iy.finetune.buckets import around, cut, nearest, on_photo, shapes
from iy.params import Buckets

SDXL = Buckets(step=64, ratio=2.0, resolutions=(1.0, 0.75))
NOBODY = np.full(4, np.nan)


@st.composite
def photos(draw) -> tuple[int, int, list[float]]:
    """Height and width, and a face that may reach beyond the edges."""
    height, width = draw(st.integers(16, 3000)), draw(st.integers(16, 3000))
    corners = []
    for side in (width, height):
        first, second = sorted(draw(st.floats(-0.3 * side, 1.3 * side)) for _ in range(2))
        corners.append((first, second + 1))
    (x0, x1), (y0, y1) = corners
    return height, width, [x0, y0, x1, y1]


@given(photos(), st.sampled_from([128, 512, 1024]))
def test_no_bucket_cuts_a_face(photo, size):
    height, width, box = photo
    face = np.array(box)
    seen = on_photo(height, width, face)
    for shape in [one for group in shapes(size, SDXL) for one in group]:
        left, top, wide, high = around(height, width, face, shape)
        assert left <= seen[0] and seen[2] <= left + wide and top <= seen[1] and seen[3] <= top + high


@given(photos())
def test_a_cut_moves_the_box_with_the_face(photo):
    height, width, box = (min(photo[0], 300), min(photo[1], 300), photo[2])
    image = np.zeros((height, width, 3), np.uint8)
    seen = on_photo(height, width, np.array(box))
    found = cut(image, box, 128, Buckets(step=16, ratio=2.0, resolutions=(1.0,)))
    moved = cut(image, seen.tolist(), 128, Buckets(step=16, ratio=2.0, resolutions=(1.0,)))
    assert found.image.shape[0] % 16 == 0 == found.image.shape[1] % 16
    x0, y0, x1, y1 = moved.box
    assert -1e-6 <= x0 < x1 <= found.image.shape[1] + 1e-6 and -1e-6 <= y0 < y1 <= found.image.shape[0] + 1e-6


def test_buckets_have_about_the_same_area_and_a_bounded_shape():
    high, low = shapes(1024, SDXL)
    assert (1024, 1024) in high and (832, 1280) in high and (768, 768) in low
    for group, side in ((high, 1024), (low, 768)):
        assert all(one[0] % 64 == 0 == one[1] % 64 and max(one) <= 2 * min(one) for one in group)
        assert all(0.9 < one[0] * one[1] / side**2 < 1.1 for one in group)


@pytest.mark.parametrize(
    "height, width, shape",
    [(1024, 1024, (1024, 1024)), (3000, 2000, (1280, 832)), (2000, 3000, (832, 1280)), (900, 900, (768, 768))],
)
def test_the_nearest_shape_is_taken_and_nothing_is_enlarged(height, width, shape):
    assert nearest(height, width, NOBODY, shapes(1024, SDXL)) == shape


def test_a_face_that_no_window_on_the_photo_holds_is_kept_whole_by_repeating_edges():
    image = np.full((40, 400, 3), 7, np.uint8)
    image[:, 150:250] = 200
    found = cut(image, [150.0, 0.0, 250.0, 40.0], 64, Buckets(step=16, ratio=1.0, resolutions=(1.0,)))
    assert found.image.shape == (64, 64, 3) and found.image.min() == found.image.max() == 200
    assert found.box[0] == 0 and found.box[2] == 64


def test_sizes_say_where_the_cut_lies_on_the_whole_photo():
    image = np.zeros((100, 200, 3), np.uint8)
    found = cut(image, [150.0, 10.0, 190.0, 60.0], 50, None)
    assert found.sizes.tolist() == [100, 200, 0, 50, 50, 50]
    np.testing.assert_allclose(found.box, [25, 5, 45, 30])
