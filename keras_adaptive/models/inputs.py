"""How a network's graph begins: its pictures, and their normalisation from values 0 to 255."""

import math
import numbers

import keras

# Mean and standard deviation of pixels scaled to 0..1, from the reference programs.
STATISTICS = {
    "cifar10": ((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def picture_input(input_shape):
    """Return the `keras.Input` of a network.

    Args:
        input_shape: `(height, width, channels)`; sides may be `None`, of any size.

    Raises:
        ValueError: If it is no such shape.
    """
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    sides = [side for side in shape[:2] if side is not None]
    if len(shape) != 3 or not all(_is_size(size) for size in (*sides, shape[2])):
        raise ValueError(
            "`input_shape` is (height, width, channels), whole numbers above 0, such as "
            f"(32, 32, 3); sides may be None. Received: {input_shape!r}."
        )
    return keras.Input(shape, name="pictures")


def _is_size(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value > 0


def normalize(pictures, normalization):
    """Return `(pictures / 255 - mean) / std` as one layer of the graph.

    Args:
        pictures: `keras.KerasTensor`, values 0 to 255.
        normalization: a name in `STATISTICS`, for pictures with three channels, a pair
            `(mean, std)` of a number per channel each for pixels scaled to 0..1, or `None` to
            return `pictures` as they are.

    Raises:
        ValueError: If `normalization` is none of these or for another number of channels, or a
            standard deviation is not above 0, or Keras is set to channels first, which no network
            of this package has.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "This package's networks have channels last, and `keras.config.image_data_format()` is "
            f"{keras.config.image_data_format()!r}. Call "
            "`keras.config.set_image_data_format('channels_last')` before they are made or loaded."
        )
    if normalization is None:
        return pictures
    mean, std = mean_and_std(normalization)
    channels = pictures.shape[-1]
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"`normalization` has {len(mean)} means and {len(std)} standard deviations, and the "
            f"pictures have {channels} channels. Give a pair (mean, std) of {channels} each, such "
            f"as {((0.5,) * channels, (0.25,) * channels)}, or pictures with {len(mean)} channels."
        )
    return keras.layers.Rescaling(
        scale=[1.0 / (255.0 * s) for s in std],
        offset=[-m / s for m, s in zip(mean, std)],
        name="normalization",
    )(pictures)


def mean_and_std(normalization):
    """Return the lists of means and standard deviations of a name in `STATISTICS` or a pair.

    Raises:
        ValueError: If it is neither, or they are no finite numbers, or a deviation is not above 0.
    """
    if isinstance(normalization, str):
        if normalization not in STATISTICS:
            raise ValueError(
                f"Unknown `normalization` {normalization!r}. Known are {sorted(STATISTICS)}; or "
                "give a pair (mean, std) for pixels scaled to 0..1, or None."
            )
        normalization = STATISTICS[normalization]
    try:
        mean, std = map(list, normalization)
    except (TypeError, ValueError):
        mean, std = None, None
    if mean is None or not all(isinstance(value, numbers.Real) and math.isfinite(value)
                               for value in (*mean, *std)):
        raise ValueError(
            "`normalization` is a name, a pair (mean, std) of a finite number per channel each, or "
            f"None. Received: {normalization!r}."
        )
    if not all(value > 0 for value in std):
        raise ValueError(
            "The standard deviations of `normalization` divide pixels, and are above 0. "
            f"Received: {normalization!r}. With 1 a channel stays as it is."
        )
    return mean, std
