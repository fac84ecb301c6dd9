"""Thumbnails of single pictures without a network: pillow's resizing, and JPEG's own."""

import math

import numpy as np
from PIL import Image

from keras_adaptive.names import did_you_mean
from keras_adaptive.picture_files import opaque, open_picture, turned

_FILTERS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
METHODS = tuple(_FILTERS)


def check_shrinking(ratio, method):
    """Raise a `ValueError` if `ratio` is no whole number of 2 or more, or `method` is unknown."""
    if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 2:
        raise ValueError(f"`ratio` is a whole number of 2 or more. Received: ratio={ratio!r}.")
    if method not in METHODS:
        raise ValueError(
            f"`method` is one of {list(METHODS)}. Received: {method!r}."
            f"{did_you_mean(str(method), METHODS)}"
        )


def shrink(picture, ratio, method="area"):
    """Make a picture smaller by a whole number, with antialiasing.

    Args:
        picture: uint8 array `(height, width, channels)`, grey or RGB.
        ratio: int. Pixels of the picture, to a side, that become one of the thumbnail.
        method: `"area"`, the mean of `ratio * ratio` pixels, or `"bilinear"` or `"bicubic"`, each
            as pillow computes and rounds it.

    Returns:
        uint8 array `(ceil(height / ratio), ceil(width / ratio), channels)`.

    Raises:
        ValueError: If `ratio` is no whole number of 2 or more, or `method` is unknown.
    """
    check_shrinking(ratio, method)
    picture = np.asarray(picture)
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    if method == "area":
        image = image.reduce(ratio)
    else:
        image = image.resize(_smaller(image.size, ratio), _FILTERS[method])
    return np.asarray(image).reshape(image.height, image.width, -1)


def thumbnail_ratio(pictures, thumbnails):
    """Return how many pixels of a picture, to a side, became one of its thumbnail.

    Args:
        pictures: array `(n, height, width, channels)`.
        thumbnails: array `(n, height / ratio, width / ratio, channels)`.

    Raises:
        ValueError: If there is no picture, or the shapes are not these for a whole ratio of 2 or
            more.
    """
    shapes = np.shape(pictures), np.shape(thumbnails)
    if [len(shape) for shape in shapes] == [4, 4] and 0 not in (*shapes[0], *shapes[1]):
        (count, *size, channels), (small_count, *small_size, small_channels) = shapes
        ratio = size[0] // small_size[0]
        if ratio >= 2 and (count, channels, *size) == (
                small_count, small_channels, *(ratio * side for side in small_size)):
            return ratio
    raise ValueError(
        "Pictures (n, height, width, channels) and their thumbnails have sides that differ by a "
        f"whole ratio of 2 or more. Received the shapes {shapes[0]} and {shapes[1]}."
    )


def read_reduced(file, ratio):
    """Decode a JPEG at a smaller size right away, which costs nearly nothing.

    The decoder leaves out the fine frequencies, and gives 1/1, 1/2, 1/4 or 1/8 of each side, the
    least that is not below `size / ratio`; the mean of pixels makes up for the rest. Files of other
    formats are decoded as a whole and then shrunk.

    Args:
        file: path or open binary file.
        ratio: int. As in `shrink`.

    Returns:
        uint8 array `(ceil(height / ratio), ceil(width / ratio), 3)`, upright as the EXIF data say,
        white where the picture is transparent.

    Raises:
        ValueError: If `ratio` is no whole number of 2 or more, or nothing says which of the
            picture's values are black and white.
        OSError: If the file is no picture.
    """
    check_shrinking(ratio, "area")
    with open_picture(file) as picture:
        wanted = _smaller(picture.size, ratio)
        # Asked for the size rounded up, the decoder would take the next larger one.
        picture.draft("RGB", tuple(max(1, side // ratio) for side in picture.size))
        small = turned(opaque(picture).resize(wanted, Image.Resampling.BOX), picture)
    return np.asarray(small)


def _smaller(size, ratio):
    return tuple(math.ceil(side / ratio) for side in size)
