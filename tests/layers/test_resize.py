import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive.layers import AlignedResize
from keras_adaptive.layers.resize import interpolation_matrix

SIZES = [(16, 32), (32, 16), (7, 13), (13, 7), (1, 5), (5, 1), (33, 17), (11, 29), (2, 3), (9, 9)]


@pytest.fixture(params=SIZES, ids=str)
def sizes(request):
    return request.param


def picture(rows, columns):
    return np.random.default_rng(0).normal(size=(2, rows, columns, 3)).astype("float32")


def interpolate(values, size, axis):
    """Linear interpolation along one axis, corners aligned, by NumPy in float64."""
    places = np.linspace(0, values.shape[axis] - 1, size) if size > 1 else np.zeros(1)
    known = np.arange(values.shape[axis])
    return np.apply_along_axis(lambda line: np.interp(places, known, line), axis, values)


def test_equals_linear_interpolation_along_rows_and_columns(sizes):
    """Rows and columns of different, odd and degenerate sizes."""
    x = picture(*sizes)

    resized = AlignedResize(*reversed(sizes))(x)

    expected = interpolate(interpolate(x, sizes[1], axis=1), sizes[0], axis=2)
    assert_allclose(keras.ops.convert_to_numpy(resized), expected, atol=2e-6)


def test_equals_pytorch_with_aligned_corners(sizes):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference")
    x = picture(*sizes)

    resized = AlignedResize(*reversed(sizes))(x)

    expected = torch.nn.functional.interpolate(
        torch.from_numpy(np.moveaxis(x, -1, 1).copy()), tuple(reversed(sizes)), mode="bilinear",
        align_corners=True).numpy()
    # PyTorch rounds the source coordinates to float32.
    assert_allclose(keras.ops.convert_to_numpy(resized), np.moveaxis(expected, 1, -1), atol=1e-5)


def test_rows_by_hand():
    """From 3 to 5 every second row lies midway between two; corners keep their values."""
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]

    assert_array_equal(interpolation_matrix(3, 5), np.float32(expected))
    assert_array_equal(interpolation_matrix(4, 1), np.float32([[1, 0, 0, 0]]))
    assert_array_equal(interpolation_matrix(1, 3), np.float32([[1], [1], [1]]))


def test_same_size_is_the_identity():
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 2)).astype("float32")

    assert_array_equal(keras.ops.convert_to_numpy(AlignedResize(4, 6)(x)), x)


def test_unknown_size_is_refused_with_the_cure():
    with pytest.raises(ValueError, match="needs the input's rows and columns"):
        AlignedResize(4, 4)(keras.Input((None, None, 3)))


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="height=0"):
        AlignedResize(0, 4)
