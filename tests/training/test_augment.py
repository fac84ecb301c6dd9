import numpy as np
from numpy.testing import assert_array_equal

from keras_adaptive.training.augment import crop_and_flip


def test_every_picture_is_a_shifted_and_perhaps_mirrored_copy():
    """Each result is found in the padded original at one of the allowed places."""
    random = np.random.default_rng(1)
    pictures = random.integers(1, 256, (12, 16, 16, 3)).astype("uint8")

    augmented = crop_and_flip(pictures, np.random.default_rng(5))

    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = []
    for picture, result in zip(padded, augmented):
        places = [(r, c, mirror) for r in range(5) for c in range(5) for mirror in (False, True)
                  if np.array_equal(picture[r:r + 16, c:c + 16][:, ::-1 if mirror else 1], result)]
        assert places
        found.append(places[0])
    assert len({place[:2] for place in found}) > 3
    assert {mirror for *_, mirror in found} == {False, True}


def test_same_generator_same_result():
    pictures = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3)).astype("uint8")

    first, second = (crop_and_flip(pictures, np.random.default_rng(5)) for _ in range(2))

    assert_array_equal(first, second)
    assert first.dtype == np.uint8
