"""What thumbnails look like, in numbers: moments, distance to averaged pixels, clipped values."""

import dataclasses
import math

import numpy as np

from keras_adaptive.shrinking import thumbnail_ratio

_WINDOW = 7  # pixels to a side; smaller than usual, because thumbnails are
# Of the largest value, 255: what keeps the quotients finite in flat places (Wang et al., 2004).
_SSIM_1, _SSIM_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


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


def structural_similarity(pictures, others):
    """Return how alike two sets of pictures are in brightness, contrast and structure (SSIM).

    Means, deviations and covariance are those of windows of 7 x 7 pixels, all alike in weight,
    which lie wholly inside the picture; the result is the mean over windows, channels and pictures.

    Args:
        pictures, others: arrays `(n, height, width, channels)`, values 0 to 255, sides of 7 pixels
            or more.

    Returns:
        Float, 1 for equal pictures and below for others.

    Raises:
        ValueError: If the shapes differ, or a side is too short.

    Reference:
        [Wang et al., 2004](https://doi.org/10.1109/TIP.2003.819861), with square windows in place
        of Gaussian ones of 11 x 11, into which small thumbnails do not fit.
    """
    pictures, others = (np.asarray(values, "float64") for values in (pictures, others))
    if pictures.shape != others.shape or pictures.ndim != 4 or min(pictures.shape[1:3]) < _WINDOW:
        raise ValueError(
            "Pictures that are compared have one shape (n, height, width, channels), with sides of "
            f"{_WINDOW} pixels or more. Received the shapes {pictures.shape} and {others.shape}."
        )
    mean, other_mean = _window_means(pictures), _window_means(others)
    variances = (_window_means(pictures**2) - mean**2) + (_window_means(others**2) - other_mean**2)
    covariance = _window_means(pictures * others) - mean * other_mean
    brightness = (2 * mean * other_mean + _SSIM_1) / (mean**2 + other_mean**2 + _SSIM_1)
    structure = (2 * covariance + _SSIM_2) / (variances + _SSIM_2)
    return float((brightness * structure).mean())


def _window_means(values):
    """Return the means of all windows, `(n, height - 6, width - 6, channels)`."""
    for axis in (1, 2):
        windows = np.lib.stride_tricks.sliding_window_view(values, _WINDOW, axis=axis)
        values = windows.mean(axis=-1)
    return values
