"""Turn a folder of pictures into a folder of thumbnail files, once, ahead of all use."""

import dataclasses
import functools
import hashlib
import io
import json
import math
import os
import pathlib

import numpy as np
from PIL import Image

from keras_adaptive.files import read_json, write_whole
from keras_adaptive.inference.prefetch import Prefetch
from keras_adaptive.inference.progress import show_progress
from keras_adaptive.names import did_you_mean
from keras_adaptive.picture_files import (
    InputRule,
    UnreadablePicturesError,
    find_files,
    read_picture,
)
from keras_adaptive.shrinking import check_shrinking, shrink

RECORD = "thumbnails.json"  # stands in the destination and says how its files were made
SOURCES = "thumbnails_sources.json"  # beside it: which state of which picture each file shows
_ENDINGS = {"png": ".png", "jpeg": ".jpg"}
FORMATS = tuple(_ENDINGS)
_FILES_AHEAD = 8
# Photographs of any size wait for others of their size until so many pixels are together.
_MAX_PIXELS_WAITING = 2**22


@dataclasses.dataclass(frozen=True)
class ThumbnailFiles:
    """What `write_thumbnails` did.

    Attributes:
        written: int. Thumbnails written now.
        skipped: int. Thumbnails that were there already and are no older than their pictures.
        unreadable: dict of path to what is wrong with that file, which may also be too small; there
            is no thumbnail of these.
        left_over: tuple of paths. Thumbnails of an earlier call whose pictures are no longer in the
            folder; another folder's, where several were written into one destination.
    """

    written: int
    skipped: int
    unreadable: dict
    left_over: tuple = ()

    def __str__(self):
        text = (f"{self.written} thumbnails written, {self.skipped} there already, "
                f"{len(self.unreadable)} files unreadable")
        return text + (f", {len(self.left_over)} of pictures that are no longer there"
                       if self.left_over else "")


def write_thumbnails(source, destination, downscaler=None, *, ratio=None, method="area",
                     file_format="png", quality=95, batch_size=32, verbose="auto"):
    """Write a thumbnail file of every picture in a folder and the folders below it.

    Names stay, but for the ending. Pictures lie upright as their EXIF data say, and what is
    transparent becomes white. Interrupted, the same call goes on: thumbnails that are there and no
    older than their pictures are skipped, and none is ever half written. Files that cannot be read
    are skipped and named in the result, and an earlier thumbnail of theirs goes. Thumbnails whose
    pictures were taken out of the folder stay, and are named in the result. `thumbnails.json` in
    the destination keeps how its files were made, so that none of another kind get among them;
    `thumbnails_sources.json` keeps name, size and time of the pictures, so that a thumbnail of
    another picture that had its name is not taken for one that is there.

    Args:
        source: path of a folder.
        destination: path of a folder: new, empty, or one that was written with the same arguments.
        downscaler: `keras.Model` from pictures to thumbnails, both with values 0 to 255, or path of
            one as a `.keras` file. Where it takes one size, pictures are brought to that as by
            `EarlyExitPredictor`: the shorter side is scaled, the centre is cut out; where it takes
            any, they keep their size. Its output is clipped to 0..255 and rounded, half to even.
        ratio: int. In place of `downscaler`: shrink by this factor without a network.
        method: `"area"`, `"bilinear"` or `"bicubic"`, for `ratio`; see `shrink`.
        file_format: `"png"`, which keeps every value, or `"jpeg"`.
        quality: int, 1 to 100, for `"jpeg"`.
        batch_size: int. Most pictures of one size that go through the downscaler together.
        verbose: whether a progress bar is shown; `"auto"`: on a terminal, where it is long.

    Returns:
        `ThumbnailFiles`.

    Raises:
        ValueError: If an argument is wrong, `source` is no folder with pictures, two of them would
            become one file, or one a file where another needs a folder, or something else stands in
            `destination`.
        OSError: If a file cannot be written.

    Example:

    >>> write_thumbnails("photos", "thumbnails", ratio=2)  # doctest: +SKIP
    ThumbnailFiles(written=120, skipped=0, unreadable={}, left_over=())
    """
    _check_format(file_format, quality, batch_size)
    source, destination = pathlib.Path(source), pathlib.Path(destination)
    _check_folders(source, destination)
    maker = _choose_maker(downscaler, ratio, method)
    places = _choose_places(source, destination, _ENDINGS[file_format])
    record = {**maker.record, "format": file_format}
    if file_format == "jpeg":
        record["quality"] = quality
    _keep_record(destination, record)
    sources = _Sources(destination)
    # Taken before the pictures are read: what changes meanwhile is noticed by the next call.
    stamps = {path: _stamp(path) for path in places}
    waiting = [path for path, target in places.items()
               if not sources.has(target, stamps[path])]
    unreadable = {}
    try:
        with show_progress(len(places), batch_size, verbose) as advance:
            advance(len(places) - len(waiting))
            read = functools.partial(_read, maker.rule)
            with Prefetch(map(read, waiting), _FILES_AHEAD) as pictures:
                for paths, batch in _group_by_size(pictures, unreadable, batch_size, advance):
                    for path, thumbnail in zip(paths, maker.make(batch), strict=True):
                        if 0 in thumbnail.shape:
                            unreadable[path] = "too small for a thumbnail of one pixel or more"
                            continue
                        _write(places[path], encode(thumbnail, file_format, quality))
                        sources.add(places[path], stamps[path])
                    advance(len(paths))
    finally:  # what a call did that is broken off is not done again
        for path in unreadable:
            places[path].unlink(missing_ok=True)
        sources.write()
    return ThumbnailFiles(
        len(waiting) - len(unreadable), len(places) - len(waiting), unreadable,
        sources.left_over(places.values()))


def quantize(values):
    """Return values 0 to 255 as a file keeps them: clipped and rounded, half to even.

    Args:
        values: float array.

    Returns:
        uint8 array of the same shape.
    """
    return np.rint(np.clip(values, 0, 255)).astype("uint8")


def encode(thumbnail, file_format, quality=95):
    """Return the bytes of a picture file.

    Args:
        thumbnail: uint8 array `(height, width, channels)`, grey or RGB.
        file_format: `"png"` or `"jpeg"`.
        quality: int, 1 to 100, for `"jpeg"`.
    """
    content = io.BytesIO()
    image = Image.fromarray(thumbnail[..., 0] if thumbnail.shape[-1] == 1 else thumbnail)
    image.save(content, file_format, **({"quality": quality} if file_format == "jpeg" else {}))
    return content.getvalue()


def load_downscaler(model):
    """Return a downscaler, read from a `.keras` file where a path is given; code in it is refused.

    Args:
        model: `keras.Model` with one input and one output, pictures and thumbnails; or a path.

    Raises:
        ValueError: If it is none of these, or the file does not exist.
    """
    import keras

    from keras_adaptive.model_files import load_model_file

    if isinstance(model, (str, os.PathLike)):
        model = load_model_file(model)
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        raise ValueError(
            "`downscaler` is a Functional `keras.Model`, or the path of one as a .keras file. "
            f"Received: {type(model).__name__}."
        )
    shapes = [[tuple(tensor.shape) for tensor in tensors]
              for tensors in (model.inputs, model.outputs)]
    if any(len(group) != 1 or len(group[0]) != 4 or group[0][-1] not in (1, 3)
           for group in shapes):
        raise ValueError(
            "A downscaler takes pictures (batch, height, width, 3) and gives thumbnails of that "
            f"kind; 1 channel if they are grey. {model.name!r} takes {shapes[0]} and gives "
            f"{shapes[1]}."
        )
    return model


class _Network:
    """Thumbnails by a downscaler."""

    def __init__(self, model):
        self._model = model
        *size, channels = model.inputs[0].shape[1:]
        rule = getattr(model, "input_rule", None)
        if rule:
            self.rule = InputRule.from_dict(rule, channels)
        else:
            self.rule = InputRule(None if None in size else tuple(size), channels)
        # Layers without weights, too: all that resize would be alike otherwise.
        layers = [(type(layer).__name__, {**layer.get_config(), "name": None})
                  for layer in model.layers]
        described = [size, list(model.outputs[0].shape[1:]), rule, layers]
        digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
        for value in model.get_weights():
            digest.update(np.ascontiguousarray(value).tobytes())
        self.record = {"downscaler": digest.hexdigest()}

    def make(self, batch):
        return quantize(np.asarray(self._model.predict_on_batch(batch)))


class _Resizing:
    """Thumbnails by pillow."""

    rule = InputRule(None, 3)

    def __init__(self, ratio, method):
        check_shrinking(ratio, method)
        self._arguments = self.record = {"ratio": ratio, "method": method}

    def make(self, batch):
        return [shrink(picture, **self._arguments) for picture in batch]


def _choose_maker(downscaler, ratio, method):
    if (downscaler is None) == (ratio is None):
        raise ValueError(
            "`write_thumbnails` takes one of `downscaler` and `ratio`. "
            f"Received: downscaler={downscaler!r}, ratio={ratio!r}."
        )
    if downscaler is None:
        return _Resizing(ratio, method)
    if method != "area":
        raise ValueError(
            f"`method` says how to shrink by `ratio`; a downscaler has its own. Received: "
            f"method={method!r}. Leave one of them out."
        )
    return _Network(load_downscaler(downscaler))


def _check_format(file_format, quality, batch_size):
    if file_format not in FORMATS:
        raise ValueError(
            f"`file_format` is one of {list(FORMATS)}. Received: {file_format!r}."
            f"{did_you_mean(str(file_format), FORMATS)}"
        )
    if not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"`quality` is a whole number from 1 to 100. Received: {quality!r}.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` is a whole number of 1 or more. Received: {batch_size!r}.")


def _check_folders(source, destination):
    if not source.is_dir():
        raise ValueError(
            f"`source` is a folder of pictures. Received: {str(source)!r}, "
            + ("which is a file." if source.exists() else "which does not exist.")
        )
    if destination.resolve().is_relative_to(source.resolve()):
        raise ValueError(
            "`destination` lies outside of `source`: thumbnails would be taken for pictures the "
            f"next time. Received: {str(destination)!r} in {str(source)!r}."
        )


def _choose_places(source, destination, ending):
    """Return a dict of every picture's path to that of its thumbnail."""
    places, taken = {}, {}
    for path in find_files(source):
        target = (destination / os.path.relpath(path, source)).with_suffix(ending)
        if target in taken:
            raise ValueError(
                f"{taken[target]} and {path} would both become {target}. Rename one of them."
            )
        taken[target] = path
        places[path] = target
    for target, path in taken.items():
        if other := next((taken[parent] for parent in target.parents if parent in taken), None):
            raise ValueError(
                f"{other} would become a file where {path} needs a folder. Rename one of them."
            )
    return places


def _keep_record(destination, record):
    """Write how the thumbnails are made, or raise if those that are there were made otherwise."""
    path = destination / RECORD
    if path.is_file():
        try:
            found = read_json(path)
        except ValueError as error:  # neither JSON nor UTF-8
            raise ValueError(
                f"{path} is damaged, so that nobody knows how the thumbnails beside it were made "
                f"({error}). Choose another folder, or delete that one."
            ) from error
        if found != record:
            raise ValueError(
                f"{destination} holds thumbnails that were made otherwise: {found}, and now "
                f"{record} is asked for. Choose another folder, or delete that one."
            )
        return
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(
            f"`destination` is a new or an empty folder, or one with {RECORD}, which an earlier "
            f"call wrote. Something else stands in {destination}."
        )
    _write(path, json.dumps(record, indent=1).encode())


class _Sources:
    """Which state of which picture the thumbnails of a folder show, as far as it is known.

    Without its file, or with one that is damaged, nothing is known, and thumbnails are made anew.
    """

    def __init__(self, destination):
        self._folder = destination
        try:
            found = json.loads((destination / SOURCES).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            found = {}
        self._stamps = found if isinstance(found, dict) else {}

    def has(self, target, stamp):
        """Tell whether a thumbnail is there, of this state of this picture, and no older."""
        return (stamp is not None and self._stamps.get(self._name(target)) == stamp
                and target.is_file() and target.stat().st_mtime_ns >= stamp[-1])

    def add(self, target, stamp):
        self._stamps[self._name(target)] = stamp

    def left_over(self, targets):
        """Return the paths of the thumbnails that an earlier call wrote, of none of these."""
        # Not deleted: they may be those of another folder.
        others = sorted(set(self._stamps) - set(map(self._name, targets)))
        return tuple(path for path in (os.path.join(self._folder, name) for name in others)
                     if os.path.isfile(path))

    def write(self):
        _write(self._folder / SOURCES, json.dumps(self._stamps).encode())

    def _name(self, target):
        return target.relative_to(self._folder).as_posix()


def _stamp(path):
    """Return name, size and time of a file, or None for a link to nothing."""
    try:
        status = os.stat(path)
    except OSError:  # is told where it is read
        return None
    return [os.path.basename(path), status.st_size, status.st_mtime_ns]


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: partial.write_bytes(content))


def _read(rule, path):
    """Return the path, the picture or None, and what is wrong with the file."""
    try:
        return path, read_picture(path, rule), None
    except UnreadablePicturesError as error:
        return path, None, error.reasons[path]


def _group_by_size(pictures, unreadable, batch_size, advance):
    """Give batches of pictures of one size, with their paths, and note those without picture."""
    waiting, num_pixels = {}, 0
    for path, picture, reason in pictures:
        if picture is None:
            unreadable[path] = reason
            advance(1)
            continue
        group = waiting.setdefault(picture.shape, [])
        group.append((path, picture))
        num_pixels += math.prod(picture.shape[:2])
        if num_pixels >= _MAX_PIXELS_WAITING:
            group = max(waiting.values(), key=len)
        elif len(group) < batch_size:
            continue
        shape = group[0][1].shape
        num_pixels -= len(group) * math.prod(shape[:2])
        yield _join(waiting.pop(shape))
    yield from map(_join, waiting.values())


def _join(group):
    paths, pictures = zip(*group)
    return paths, np.stack(pictures)
