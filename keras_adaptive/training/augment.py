"""Augmentation of batches of pictures, a function of the pictures and of random numbers given."""

import math

import keras
import numpy as np
from PIL import Image

# Shapes of the parts that random resized crops cut out: width by height.
RATIOS = (3 / 4, 4 / 3)
# The papers pad 32-pixel pictures by 4 (Huang et al., 2018, section 5).
PADDING_SHARE = 4 / 32
GREY = 127.5  # about the mean of photographs, so that batch normalisation sees what it knows


def crop_and_flip(pictures, rng):
    """Return the pictures shifted at random, padded with zeros, and half of them mirrored.

    Args:
        pictures: array `(batch, height, width, channels)`.
        rng: `numpy.random.Generator`. Each picture gets its own shift and its own coin.

    Returns:
        Array of the same shape and dtype.

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 5: pad 4, random crop, flip.
    """
    batch, height, width, _ = pictures.shape
    pad = round(PADDING_SHARE * height)
    padded = np.pad(pictures, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    tops = rng.integers(0, 2 * pad + 1, batch).tolist()
    lefts = rng.integers(0, 2 * pad + 1, batch).tolist()
    mirrored = rng.integers(0, 2, batch).astype(bool)
    shifted = np.empty_like(pictures)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        shifted[i] = padded[i, top:top + height, left:left + width]
    shifted[mirrored] = shifted[mirrored, :, ::-1]
    return shifted


def resized_crop_and_flip(pictures, rng, least_area):
    """Return a random part of each picture, scaled to the whole size, and half of them mirrored.

    A part has a random share of the picture's area and a random shape, from `RATIOS`, or the
    nearest shape that fits into the picture.

    Args:
        pictures: uint8 array `(batch, height, width, 3)`.
        rng: `numpy.random.Generator`. Each picture gets its own part and its own coin.
        least_area: float above 0, at most 1. Smallest share of the area; the largest is 1.

    Returns:
        uint8 array of the same shape.

    Reference:
        [Szegedy et al., 2015](https://arxiv.org/abs/1409.4842), section 6.
    """
    batch, height, width, _ = pictures.shape
    area = rng.uniform(least_area, 1, batch) * height * width
    ratio = np.exp(rng.uniform(*map(math.log, RATIOS), batch))
    ratio = np.clip(ratio, area / height**2, width**2 / area)
    # Rounding may leave a side a little longer than the picture's, which pillow refuses.
    widths = np.minimum(np.sqrt(area * ratio), width)
    heights = np.minimum(np.sqrt(area / ratio), height)
    left, top = rng.random(batch) * (width - widths), rng.random(batch) * (height - heights)
    boxes = np.stack([left, top, np.minimum(left + widths, width),
                      np.minimum(top + heights, height)], axis=1).tolist()
    mirrored = rng.integers(0, 2, batch).astype(bool)
    parts = np.empty_like(pictures)
    for i, box in enumerate(boxes):
        # Pillow's scaling leaves Python's lock to other threads.
        parts[i] = Image.fromarray(pictures[i]).resize((width, height), Image.Resampling.BILINEAR,
                                                       box)
    parts[mirrored] = parts[mirrored, :, ::-1]
    return parts


def change(pictures, seed, augmentation):
    """Return the pictures changed as the argument of a pipeline says.

    Args:
        pictures: uint8 array `(batch, height, width, 3)`.
        seed: int. The same seed gives the same changes, where `augmentation` is a dict.
        augmentation: dict of arguments for `rand_augment`; or a Keras layer, such as keras-cv's
            `RandAugment`, or another function of a float32 array of pictures with values 0 to 255.
            A layer draws its own random numbers, so that a resumed run does not repeat them.

    Returns:
        uint8 array of the same shape.

    Raises:
        ValueError: If a layer or function gives another shape.
    """
    if not callable(augmentation):
        return rand_augment(pictures, seed, **augmentation)
    mode = {"training": True} if isinstance(augmentation, keras.layers.Layer) else {}
    changed = keras.ops.convert_to_numpy(augmentation(pictures.astype("float32"), **mode))
    if changed.shape != pictures.shape:
        raise ValueError(
            f"`augmentation` must give pictures of the shape that it takes, {pictures.shape}. "
            f"Received: {changed.shape}."
        )
    return _to_bytes(changed)


def rand_augment(pictures, seed, **settings):
    """Return the pictures changed by Keras's `RandAugment`.

    The kinds of changes are drawn for the batch, their strength for each picture.

    Args:
        pictures: uint8 array `(batch, height, width, 3)`.
        seed: int. The same seed gives the same changes.
        **settings: arguments of `keras.layers.RandAugment`: `num_ops`, `factor`.

    Returns:
        uint8 array of the same shape.

    Reference:
        [Cubuk et al., 2019](https://arxiv.org/abs/1909.13719).
    """
    # A layer keeps the state of its random numbers; a new one knows nothing of other batches.
    layer = keras.layers.RandAugment((0, 255), seed=int(seed), data_format="channels_last",
                                     dtype="float32", **settings)
    changed = keras.ops.convert_to_numpy(layer(pictures.astype("float32"), training=True))
    return _to_bytes(changed)


def random_erasing(pictures, seed, share):
    """Return the pictures, some with a random rectangle in grey, by Keras's `RandomErasing`.

    A rectangle's sides are 14 to 57 % of the picture's, so that it hides 2 to 33 % of the area.

    Args:
        pictures: uint8 array `(batch, height, width, 3)`.
        seed: int. The same seed gives the same rectangles.
        share: float from 0 to 1. Probability that a picture loses a rectangle.

    Returns:
        uint8 array of the same shape.

    Reference:
        [Zhong et al., 2017](https://arxiv.org/abs/1708.04896).
    """
    layer = keras.layers.RandomErasing((share, share), fill_value=GREY, seed=int(seed),
                                       data_format="channels_last", dtype="float32")
    return _to_bytes(keras.ops.convert_to_numpy(layer(pictures.astype("float32"), training=True)))


def _to_bytes(pictures):
    return np.clip(np.rint(pictures), 0, 255).astype("uint8")
