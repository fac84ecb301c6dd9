"""ThumbNet's losses, against numbers worked out by hand."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from keras_adaptive.layers import FeatureDecoder
from keras_adaptive.training.losses import LastExitDistillation
from keras_adaptive.training.thumbnet_losses import (
    feature_mapping,
    moment_matching,
    softened_cross_entropy,
    softened_entropy,
)

CHECKERS = np.indices((4, 4)).sum(0) % 2.0
TEACHER = [[2.0, 0, -2]]
# Logits, cross-entropy times 4, divergence times 4, gradient; the teacher's logits are above and
# the temperature is 2.
DISTILLATION = {
    "undecided": ([0.0, 0, 0], 4.3944492, 1.0648668, [-0.6638152, 0.1772097, 0.4866055]),
    "half way": ([1.0, 0, -1], 3.5706579, 0.2410756, [-0.3175211, 0.1249348, 0.1925863]),
    "equal": ([2.0, 0, -2], 3.3295823, 0.0, [0, 0, 0]),
    "opposite": ([-2.0, 0, 2], 7.9312654, 4.6016831, [-1.1504208, 0, 1.1504208]),
}


def picture(*channels):
    """One picture `(1, rows, columns, channels)` of a table per channel."""
    return np.stack([np.array(channel, "float32") for channel in channels], axis=-1)[None]


def flat(*levels, size=2):
    return picture(*(np.full((size, size), level) for level in levels))


def number(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def slope(function, x, step=1e-2):
    """Central differences of a scalar function of an array."""
    x = np.array(x, "float32")
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        ends = []
        for side in (step, -step):
            moved = x.copy()
            moved[place] += side
            ends.append(number(function(moved)))
        gradient[place] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def gradient(function, x):
    """The gradient that training uses: plain descent by 1 moves the variable against it."""
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.x = self.add_weight(shape=np.shape(x), initializer="zeros")
            self.built = True

        def call(self, inputs):
            return inputs

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return function(self.x + 0.0)

    model = Model()
    model.x.assign(x)
    model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    model.fit(np.zeros((1, 1), "float32"), verbose=0)
    return np.array(x, "float32") - keras.ops.convert_to_numpy(model.x)


CASES = {
    "blocks and their mean": (
        picture(np.kron([[0, 1], [1, 0]], np.ones((2, 2)))), picture([[0, 1], [1, 0]]), 0, 0),
    "checkers and their mean": (picture(CHECKERS), flat(0.5), 0.25, 0.0625),
    "another size": (picture([[0, 1], [0, 1]]), picture([[0.2, 0.6]]), 0.10, 0.0541),
    "swapped in the batch": (np.concatenate([flat(0), flat(1)]),
                             np.concatenate([flat(1), flat(0)]), 1.0, 1.0),
    "swapped channels": (flat(0, 0.5, 1), flat(1, 0.5, 0), 2 / 3, 2 / 3),
    "pictures and channels": (
        np.concatenate([picture([[0, 1], [0, 1]], np.full((2, 2), 0.5)),
                        picture([[.2, .2], [.6, .6]], [[0, 0], [0, 1]])]),
        np.concatenate([flat(0.5, 0.3, size=1), flat(0.4, 0.25, size=1)]), 0.129375, 0.0348140625),
}


@pytest.mark.parametrize("case", CASES)
def test_moments_by_hand(case):
    """Per picture and per channel: swapped pictures or channels are as far apart as they look."""
    pictures, thumbnails, by_std, by_variance = CASES[case]

    assert number(moment_matching(pictures, thumbnails, epsilon=1e-12)) == pytest.approx(
        by_std, abs=1e-5)
    assert number(moment_matching(pictures, thumbnails, "variance")) == pytest.approx(
        by_variance, abs=1e-5)


def test_gradient_of_moments():
    pictures, thumbnails = picture([[0, 1], [0, 1]]), picture([[0.2, 0.6]])

    def loss(x):
        return moment_matching(pictures, x, epsilon=1e-12)

    assert_allclose(gradient(loss, thumbnails).ravel(), [0.2, -0.4], atol=1e-5)
    assert_allclose(slope(loss, thumbnails).ravel(), [0.2, -0.4], atol=1e-3)


def test_moments_of_a_flat_thumbnail_have_a_finite_gradient():
    """A root has an infinite slope at 0; training would end in nan."""
    assert np.isfinite(gradient(lambda x: moment_matching(picture(CHECKERS), x), flat(0.5))).all()


def test_moments_refuse_other_spreads():
    with pytest.raises(ValueError, match="'std' or 'variance'"):
        moment_matching(flat(0), flat(0), second="range")


@pytest.mark.parametrize("case", DISTILLATION)
def test_distillation_by_hand(case):
    logits, cross_entropy, divergence, expected = DISTILLATION[case]

    def loss(x):
        return softened_cross_entropy(np.float32(TEACHER), x, temperature=2.0)

    value = number(loss(np.float32([logits])))
    assert value == pytest.approx(cross_entropy, abs=1e-5)
    assert value - number(softened_entropy(np.float32(TEACHER), 2.0)) == pytest.approx(
        divergence, abs=1e-5)
    assert_allclose(gradient(loss, np.float32([logits])), [expected], atol=1e-5)
    assert_allclose(slope(loss, np.float32([logits])), [expected], atol=1e-3)


def test_logarithms_of_probabilities_serve_as_logits():
    """A teacher that ends in softmax is the same teacher; its probabilities are no logits."""
    shares = np.exp(TEACHER) / np.exp(TEACHER).sum()
    logits = np.float32([[1, 0, -1]])

    assert number(softened_cross_entropy(np.log(shares).astype("float32"), logits, 2.0)
                  ) == pytest.approx(3.5706579, abs=1e-5)
    assert number(softened_cross_entropy(np.float32(shares), logits, 2.0)
                  ) > 4.4


def test_extreme_logits_give_finite_losses():
    loss = softened_cross_entropy(np.float32([[1e4, 0]]), np.float32([[0, 1e4]]), 1.0)

    assert number(loss) == pytest.approx(1e4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.5, 10))
def test_distillation_is_that_of_exits_plus_a_constant(seed, temperature):
    """The divergence above the floor is what `LastExitDistillation` adds to the loss."""
    teacher, own = np.random.default_rng(seed).normal(0, 3, (2, 4, 5)).astype("float32")
    exits = LastExitDistillation(soft_weight=1.0, temperature=temperature)

    divergence = number(softened_cross_entropy(teacher, own, temperature)) - number(
        softened_entropy(teacher, temperature))

    assert divergence == pytest.approx(number(exits([own, teacher])), rel=1e-3, abs=1e-3)


def test_features_by_hand():
    """Nearest enlarging by a kernel of ones: the gradient reaches map and kernel."""
    wanted = np.full((1, 4, 4, 1), 2, "float32")
    small = np.array([[1.0, 2], [3, 4]], "float32").reshape(1, 2, 2, 1)

    ones = np.ones((2, 2, 1, 1), "float32")

    def loss(x, kernel=ones):
        decoded = keras.ops.conv_transpose(x, kernel, strides=2, padding="same",
                                           data_format="channels_last")
        return feature_mapping(wanted, decoded, normalize=False)

    assert number(loss(small)) == pytest.approx(1.5)
    assert_allclose(gradient(loss, small)[0, ..., 0], [[-0.5, 0], [0.5, 1.0]], atol=1e-5)
    assert_allclose(slope(loss, small)[0, ..., 0], [[-0.5, 0], [0.5, 1.0]], atol=1e-3)
    assert_allclose(gradient(lambda kernel: loss(keras.ops.convert_to_tensor(small), kernel),
                             ones), np.full((2, 2, 1, 1), 1.25), atol=1e-5)


def test_features_relative_to_the_teachers():
    wanted = np.full((1, 4, 4, 1), 2, "float32")
    nearest = np.kron([[1.0, 2], [3, 4]], np.ones((2, 2))).reshape(1, 4, 4, 1)

    assert number(feature_mapping(wanted, nearest.astype("float32"))) == pytest.approx(0.375)


def test_two_doublings_by_hand():
    """Kernels of four ones in the middle repeat each pixel: 3 becomes 4x4 threes, 1 from 2."""
    decoder = FeatureDecoder(1, 4)
    decoder.build((None, 1, 1, 1))
    kernel = np.zeros((4, 4, 1, 1))
    kernel[1:3, 1:3] = 1
    for layer in decoder.convolutions:
        layer.kernel.assign(kernel)

    decoded = decoder(np.full((1, 1, 1, 1), 3, "float32"))

    assert number(feature_mapping(np.full((1, 4, 4, 1), 2, "float32"), decoded, False)) == 1.0


def test_half_precision_is_computed_in_float32():
    """Of differences between pixels or logits half precision would keep a few bits."""
    loss = softened_cross_entropy(keras.ops.cast(np.float32([[8, 0]]), "bfloat16"),
                                  keras.ops.cast(np.float32([[8, 1]]), "bfloat16"))

    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    for loss in (moment_matching(keras.ops.cast(flat(0.5), "bfloat16"), flat(0.5)),
                 feature_mapping(keras.ops.cast(flat(0.5), "bfloat16"), flat(0.5))):
        assert keras.backend.standardize_dtype(loss.dtype) == "float32"
