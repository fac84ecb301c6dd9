"""Picture files and pillow pictures as arrays: decode, make upright and opaque, resize, crop."""

import dataclasses
import os

import numpy as np
from PIL import ExifTags, Image

# What a folder is searched for. A file that is named in a list may have any suffix.
SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

# What a file may hold, whatever its name: the formats of these endings, and what phones and web
# sites save under them. Others stay shut: EPS would be run as a program, by Ghostscript.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_RESIZE = "shorter_side_then_centre_crop"

# From the orientation in EXIF data to what makes the picture upright.
_WAYS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadablePicturesError(ValueError):
    """Raised when files cannot be read as pictures; it names every bad file of the list at once.

    Args:
        reasons: dict of path to what is wrong with that file, kept as the attribute `reasons`.
        num_files: int. Length of the list that the files were in.
    """

    def __init__(self, reasons, num_files):
        self.reasons = dict(reasons)
        self.num_files = num_files
        lines = "".join(f"\n  {path}: {reason}" for path, reason in self.reasons.items())
        super().__init__(
            f"{len(self.reasons)} of {num_files} files cannot be read as pictures; "
            f"repair them or take them out of the list, and call again:{lines}"
        )

    def __reduce__(self):
        return type(self), (self.reasons, self.num_files)


@dataclasses.dataclass(frozen=True)
class InputRule:
    """How a picture of any size becomes an input of the network.

    The shorter side, or the share `crop` of it, is scaled to the size asked for and the centre is
    cut out, in one antialiased step. Pictures lie upright as their EXIF data say, and what is
    transparent becomes white.
    """

    size: tuple  # height and width, or None: files keep their size
    num_channels: int  # 1 (grey) or 3 (RGB)
    interpolation: str = "bicubic"
    crop: float = 1.0

    @classmethod
    def from_dict(cls, record, num_channels):
        """Read the `input_rule` that a model carries.

        Args:
            record: dict with `size` and, if they differ from the defaults, `resize`,
                `interpolation` and `crop`.
            num_channels: int. Channels of the model's input.

        Raises:
            ValueError: If the record has unknown keys or values.
        """
        record = dict(record)
        size = record.pop("size", None)
        resize = record.pop("resize", _RESIZE)
        interpolation = record.pop("interpolation", cls.interpolation)
        crop = record.pop("crop", cls.crop)
        if record:
            raise ValueError(
                "`input_rule` has the keys size, resize, interpolation and crop. "
                f"Received also: {sorted(record)}."
            )
        if size is None or len(size) != 2 or min(size) < 1:
            raise ValueError(
                "`input_rule['size']` is height and width in pixels, such as [32, 32]. "
                f"Received: {size!r}."
            )
        if resize != _RESIZE:
            raise ValueError(f"`input_rule['resize']` is {_RESIZE!r}. Received: {resize!r}.")
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"`input_rule['interpolation']` is one of {sorted(INTERPOLATIONS)}. "
                f"Received: {interpolation!r}."
            )
        if isinstance(crop, bool) or not isinstance(crop, (int, float)) or not 0 < crop <= 1:
            raise ValueError(
                "`input_rule['crop']` is a share of the shorter side, above 0 and at most 1. "
                f"Received: {crop!r}."
            )
        return cls((int(size[0]), int(size[1])), num_channels, interpolation, crop)

    def apply(self, picture):
        """Return a `PIL.Image.Image` as a uint8 array `(height, width, num_channels)`."""
        picture = upright(picture, self.num_channels)
        if self.size is not None:
            height, width = self.size
            picture = picture.resize(
                (width, height), INTERPOLATIONS[self.interpolation],
                _centre(picture, self.size, self.crop)
            )
        return np.asarray(picture, np.uint8).reshape(picture.height, picture.width, -1)


class _UnsupportedPixelsError(ValueError):
    """Raised when a picture is whole, but nothing says which of its values are black and white."""


def upright(picture, num_channels=3):
    """Return a pillow picture as it is to be seen: upright, opaque, grey or RGB."""
    return turned(opaque(picture, num_channels), picture)


def opaque(picture, num_channels=3):
    """Return a pillow picture as grey or RGB of 8 bits, and white where it is transparent."""
    picture.load()  # some formats have what is said about them at the end
    return _opaque(_eight_bits(picture)).convert("L" if num_channels == 1 else "RGB")


def turned(picture, original):
    """Return a pillow picture turned and mirrored as the EXIF data of `original`, loaded, say.

    `ImageOps.exif_transpose` would also write the data anew, and fails on those that are odd.
    """
    way = _WAYS.get(original.getexif().get(ExifTags.Base.Orientation))
    return picture if way is None else picture.transpose(way)


def _centre(picture, size, crop):
    """Return the share `crop` of the largest centred box that has the shape of `size`."""
    scale = crop * min(picture.height / size[0], picture.width / size[1])
    height, width = size[0] * scale, size[1] * scale
    # Rounding may leave a side a little longer than the picture's, which pillow refuses.
    left, top = max(0, (picture.width - width) / 2), max(0, (picture.height - height) / 2)
    return left, top, min(left + width, picture.width), min(top + height, picture.height)


def _eight_bits(picture):
    # pillow clips deep greys at 255 where it should scale them.
    if picture.mode.startswith("I"):
        deep = np.asarray(picture)
        if deep.min() < 0 or deep.max() > 65535:
            raise _UnsupportedPixelsError(
                "grey values beyond 16 bits: convert it to 8 bits a channel")
        if picture.mode == "I" and 0 < deep.max() <= 255:
            raise _UnsupportedPixelsError(
                "32-bit grey values of at most 255, of which nothing says whether white is 255 or "
                "65535: convert it to 8 bits a channel")
        if (transparent := picture.info.get("transparency")) is not None:
            deep = np.where(deep == transparent, 65535, deep)
        return Image.fromarray((deep // 257).astype(np.uint8))
    if picture.mode == "F":
        raise _UnsupportedPixelsError("floating-point values: convert it to 8 bits a channel")
    return picture


def _opaque(picture):
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture)


def read_picture(file, rule, name=None):
    """Decode one file and bring it to the size that `rule` says.

    Args:
        file: as for `open_picture`; of an animation the first frame is taken.
        rule: `InputRule`, or another object whose `apply` makes an array of a pillow picture.
        name: string or `None`. What errors call the file; `None` for its path.

    Returns:
        uint8 array `(height, width, num_channels)`.

    Raises:
        UnreadablePicturesError: If the file is missing, cut short, no picture, or declares more
            pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    try:
        return _decode(file, rule)
    except Exception as error:  # pillow's plugins raise what they like on damaged files
        raise unreadable(os.fspath(file) if name is None else name, error) from error


def open_picture(file):
    """Open a file with pillow; its pixels are decoded where they are asked for.

    Args:
        file: str, path-like or binary file object with a picture as AVIF, BMP, GIF, JPEG, PNG, PPM,
            TIFF or WebP, or as HEIF where a plugin of pillow reads that. The ending of its name
            does not matter.

    Returns:
        `PIL.Image.Image`, to be closed.

    Raises:
        PIL.UnidentifiedImageError: If the file is none of these.
        OSError: If it cannot be opened.
    """
    Image.init()  # without it, pillow knows a few formats only; none of its versions knows all
    return Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])


def unreadable(name, error):
    """Return the `UnreadablePicturesError` of one picture.

    Args:
        name: string. Names the picture.
        error: exception that was raised when it was read.
    """
    return UnreadablePicturesError({name: _reason(error)}, 1)


def _decode(file, rule):
    with open_picture(file) as picture:
        # pillow only warns of these. Making errors of warnings would do so in all threads.
        if Image.MAX_IMAGE_PIXELS and picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        return rule.apply(picture)


def _reason(error):
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder; give the folder alone, or the files in it"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, Image.UnidentifiedImageError):
        return (f"it is not a picture in a format that is read ({', '.join(_FORMATS)}), or its "
                "beginning is damaged")
    if isinstance(error, _UnsupportedPixelsError):
        return str(error)
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return (
            f"it declares more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?); "
            "if you trust it, shrink it or raise `PIL.Image.MAX_IMAGE_PIXELS`"
        )
    return f"it is cut short or damaged ({error or type(error).__name__})"


def read_pictures(paths, rule):
    """Decode files one after the other.

    After the first bad file nothing more is handed out, but the rest of the list is tried, so that
    the error is complete. Files that do not exist are noticed before the first is decoded.

    Args:
        paths: sequence of paths.
        rule: `InputRule`.

    Yields:
        uint8 arrays `(height, width, num_channels)`.

    Raises:
        UnreadablePicturesError: At the end, with every bad file of the list.
    """
    reasons = {}
    is_complete = all(os.path.isfile(path) for path in paths)
    for path in paths:
        try:
            picture = read_picture(path, rule)
        except UnreadablePicturesError as error:
            reasons.update(error.reasons)
            continue
        if is_complete and not reasons:
            yield picture
    if reasons:
        raise UnreadablePicturesError(reasons, len(paths))


def find_files(folder):
    """Return the picture files in a folder and the folders below it, sorted by path.

    Hidden files and folders are skipped, and links to folders are not followed.

    Raises:
        ValueError: If there is none.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    if not found:
        raise ValueError(
            f"The folder {os.fspath(folder)!r} and those below it hold no pictures "
            f"({', '.join(sorted(SUFFIXES))}). Files with other suffixes can be given as a list."
        )
    return sorted(found)
