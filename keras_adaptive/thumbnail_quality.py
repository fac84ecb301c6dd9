"""What thumbnails look like, in numbers: moments, distance to averaged pixels, clipped values."""

import dataclasses
import math

import numpy as np

from keras_adaptive.shrinking import thumbnail_ratio


@dataclasses.dataclass(frozen=True)
class ThumbnailQuality:
    """How far thumbnails are from honest ones.

    Attributes:
        moment_difference: float. Squared differences of mean and of standard deviation between
            picture and thumbnail, added, mean over pictures and channels, values 0 to 1. Averaged
            pixels do not reach 0: they have less contrast than the picture.
        psnr: float or None. Decibels from the averaged pixels, over all pictures; None where they
            are equal.
        clipped_share: float. Share of values that are 0 or below, or 255 or above.
        colour_cast: float. Largest difference of a channel's mean over all pictures, 0 to 255.
    """

    moment_difference: float
    psnr: float | None
    clipped_share: float
    colour_cast: float


def measure_thumbnails(pictures, thumbnails):
    """Compare thumbnails with their pictures.

    Args:
        pictures: array `(n, height, width, channels)`, values 0 to 255.
        thumbnails: array `(n, height / ratio, width / ratio, channels)`, values 0 to 255, before or
            after clipping and rounding. Distances are those after clipping.

    Returns:
        `ThumbnailQuality`.

    Raises:
        ValueError: If the shapes do not fit each other.

    Example:

    >>> board = np.indices((4, 4)).sum(axis=0)[None, ..., None] % 2 * 255.0
    >>> measure_thumbnails(board, average(board, 2))
    ThumbnailQuality(moment_difference=0.25, psnr=None, clipped_share=0.0, colour_cast=0.0)
    """
    pictures, thumbnails = (np.asarray(values, "float64") for values in (pictures, thumbnails))
    averaged = average(pictures, thumbnail_ratio(pictures, thumbnails))
    clipped = thumbnails.clip(0, 255)
    means = pictures.mean(axis=(1, 2)) - clipped.mean(axis=(1, 2))
    deviations = pictures.std(axis=(1, 2)) - clipped.std(axis=(1, 2))
    error = float(np.square(clipped - averaged).mean())
    return ThumbnailQuality(
        moment_difference=float((means**2 + deviations**2).mean()) / 255**2,
        psnr=10 * math.log10(255**2 / error) if error else None,
        clipped_share=float(((thumbnails <= 0) | (thumbnails >= 255)).mean()),
        colour_cast=float(np.abs(means.mean(axis=0)).max()),
    )


def average(pictures, ratio):
    """Return the means of `ratio * ratio` pixels, as floats, not rounded.

    Args:
        pictures: array `(n, height, width, channels)`, sides multiples of the ratio.
        ratio: int.
    """
    count, height, width, channels = pictures.shape
    blocks = pictures.reshape(count, height // ratio, ratio, width // ratio, ratio, channels)
    return blocks.mean(axis=(2, 4))
