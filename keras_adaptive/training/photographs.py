"""Labelled photographs that stay in their files until a batch wants them."""

import dataclasses
import math
import os
import warnings
from typing import Any

import numpy as np
from PIL import Image

from keras_adaptive.picture_files import (
    InputRule,
    UnreadablePicturesError,
    read_picture,
    upright,
)
from keras_adaptive.training.augment import RATIOS, change, random_erasing
from keras_adaptive.training.bad_files import BadPictures
from keras_adaptive.training.grain_package import import_grain

# He et al., 2016, section 3.4: for the test the shorter side has 256 pixels, the centre 224.
CROP_SHARE = 224 / 256
# Szegedy et al., 2015, section 6: smallest share of the area of a training crop.
LEAST_AREA = 0.08
_ATTEMPTS = 10  # at a crop that fits, before the centre is taken

_MOST_BAD_IN_A_ROW = 100
_MOST_BAD_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class NotingGrey:
    """A rule that notes the name of a picture without colour before it makes an array of it.

    Args:
        rule: `InputRule`, or another object with `apply`.
        name: string. Names the picture.
        bad: `BadPictures` to note it in.
    """

    rule: Any
    name: str
    bad: BadPictures

    def apply(self, picture):
        """Return what `rule` makes of a `PIL.Image.Image`."""
        if picture.mode in ("1", "L", "LA", "F") or picture.mode.startswith("I"):
            self.bad.grey.add(self.name)
        return self.rule.apply(picture)


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Paths of photographs and their labels, read one by one at the size wanted.

    A file that cannot be read is noted and replaced by the next one that can, with that one's
    label: always by the same, and training goes on.

    Args:
        x: array of paths `(n,)`.
        y: int array of labels `(n,)`.
        size: int. Side of the square pictures.
        rule: dict or `None`. How a photograph becomes an input in evaluation, see `MultiExitModel`;
            its size does not count. `None` for the papers' resize and centre crop.
    """

    x: np.ndarray
    y: np.ndarray
    size: int
    rule: dict | None = None
    _bad: BadPictures = dataclasses.field(default_factory=BadPictures, repr=False, compare=False)

    # How messages name what cannot be read, and what helps.
    _kind = "files"
    _cure = "Repair or remove them"

    def __len__(self):
        return len(self.x)

    def __getitem__(self, position):
        return self.read(position, self._rule())[0]

    @property
    def pictures(self):
        """The photographs, as `ExitOutputs.from_model` takes them."""
        return self

    @property
    def label_range(self):
        """Pair of ints, the smallest and the largest label."""
        return int(self.y.min()), int(self.y.max())

    @property
    def bad_files(self):
        """dict. What is wrong with each file that could not be read so far, by its path."""
        return dict(self._bad.reasons)

    @property
    def num_grey(self):
        """int. How many files read so far are grey; they were brought to RGB."""
        return len(self._bad.grey)

    @property
    def failures(self):
        """list of exceptions that ended the reading of pictures, the first one first."""
        return self._bad.failures

    def keep_bad_files(self, path):
        """List the files that cannot be read in a `.csv` file, as soon as they are met."""
        self._bad.keep_in(path)

    @property
    def input_rule(self):
        """dict. How a photograph becomes an input in evaluation, see `MultiExitModel`."""
        papers = {"resize": "shorter_side_then_centre_crop", "interpolation": "bilinear",
                  "crop": CROP_SHARE}
        return {**(papers if self.rule is None else self.rule), "size": [self.size, self.size]}

    def _rule(self):
        return InputRule.from_dict(self.input_rule, 3)

    def resized(self, size):
        """Return the same photographs, to be read at another size."""
        return dataclasses.replace(self, size=size)

    def take(self, rows):
        """Return some of the photographs, an array of whose numbers is given."""
        return dataclasses.replace(self, x=self.x[rows], y=self.y[rows])

    def load(self, place, rule):
        """Return the picture at a place and its label, or raise `UnreadablePicturesError`."""
        path = self.x[place]
        return read_picture(path, NotingGrey(rule, path, self._bad)), self.y[place]

    def read(self, position, rule):
        """Return a picture, uint8 `(size, size, 3)`, and its label.

        Args:
            position: int. Number of the file.
            rule: `InputRule`, or another object whose `apply` makes an array of a pillow picture.

        Raises:
            UnreadablePicturesError: If very many files one after the other cannot be read, as when
                the disk is gone.
        """
        try:
            return self._first_readable(position, rule)
        except Exception as error:
            self._bad.failures.append(error)
            raise

    def _first_readable(self, position, rule):
        reasons = {}
        for step in range(min(len(self), _MOST_BAD_IN_A_ROW)):
            place = (int(position) + step) % len(self)
            try:
                return self.load(place, rule)
            except UnreadablePicturesError as error:
                reasons.update(error.reasons)
                self._bad.note(error.reasons)
        raise UnreadablePicturesError(reasons, len(self))

    def batches(self, batch_size, repeat=False):
        """Return a grain pipeline of all photographs in order, for evaluation.

        Args:
            batch_size: int. The first batch may be smaller: Keras looks at the beginning for what
                sizes there are.
            repeat: bool. Whether it begins anew after the last batch, without end.

        Returns:
            `grain.IterDataset` of `(pictures, labels)`.

        Raises:
            ImportError: If grain is not installed.
        """
        grain = import_grain()
        rule = self._rule()
        first = len(self) % batch_size or batch_size

        def load(number):
            stop = first + number * batch_size
            rows = range(max(stop - batch_size, 0), stop)
            pictures, labels = zip(*(self.read(row, rule) for row in rows))
            return np.stack(pictures), np.array(labels)

        batches = grain.MapDataset.range(-(-len(self) // batch_size)).map(load)
        # A thread reads a whole batch.
        threads = os.cpu_count() or 1
        return (batches.repeat() if repeat else batches).to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1))

    def warn_of_bad_files(self):
        """Warn of the files that could not be read so far, if there are any, with their names."""
        bad = self.bad_files
        if not bad:
            return
        lines = [f"\n  {path}: {bad[path]}" for path in sorted(bad)[:_MOST_BAD_SHOWN]]
        more = f"\n  and {len(bad) - _MOST_BAD_SHOWN} more" if len(bad) > _MOST_BAD_SHOWN else ""
        grey = f"\n{self.num_grey} grey ones were brought to RGB." if self.num_grey else ""
        warnings.warn(
            f"{len(bad)} of {len(self)} {self._kind} cannot be read as pictures and were replaced "
            f"by their neighbours. {self._cure}:{''.join(lines)}{more}{grey}", stacklevel=2)


@dataclasses.dataclass(frozen=True)
class PhotographData:
    """The parts of a data set in files. `validation` chooses checkpoints; `test` is read once."""

    train: Photographs
    validation: Photographs
    test: Photographs
    class_names: tuple


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Cut a random part out of a picture, scale it, and mirror every second one.

    Args:
        size: int. Side of the result.
        rng: `numpy.random.Generator`.
        least_area: float above 0, at most 1. Smallest share of the picture's area.

    Reference:
        [Szegedy et al., 2015](https://arxiv.org/abs/1409.4842), section 6.
    """

    size: int
    rng: np.random.Generator
    least_area: float = LEAST_AREA

    def apply(self, picture):
        """Return a `PIL.Image.Image` as a uint8 array `(size, size, 3)`."""
        picture = upright(picture)
        box = random_box(picture.width, picture.height, self.rng, self.least_area)
        picture = picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        pixels = np.asarray(picture, np.uint8)
        return pixels[:, ::-1] if self.rng.random() < 0.5 else pixels


def random_box(width, height, rng, least_area=LEAST_AREA):
    """Return the left, upper, right and lower side of a random part of a picture.

    It has a random share of the area, from `least_area` to 1, and a random shape, from `RATIOS`.
    Where none is found that fits, the largest centred part of an allowed shape is taken.
    """
    for _ in range(_ATTEMPTS):
        area = rng.uniform(least_area, 1) * width * height
        ratio = math.exp(rng.uniform(*map(math.log, RATIOS)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, round(height * RATIOS[1])) or 1
    h = min(height, round(width / RATIOS[0])) or 1
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def photograph_pipeline(photographs, batch_size, epochs, seed, first_epoch=0, augmentation=None,
                        crop_area=0.0, erasing=0.0):
    """Return a grain pipeline of augmented batches, a pure function of its arguments.

    Files are decoded by as many threads as there are processors. Every epoch has another order and
    other crops. A run resumed at `first_epoch` sees the batches that it would have seen.

    Args:
        photographs: `Photographs`.
        batch_size: int.
        epochs: int. Number of the last epoch, counted from 1.
        seed: int.
        first_epoch: int. Epochs to leave out at the start.
        augmentation: dict, layer or function, see `change`, or `None` for crops and flips only.
        crop_area: float. Smallest share of a picture's area in a crop; 0 for the papers' 0.08.
        erasing: float. Share of the pictures that lose a rectangle, see `random_erasing`.

    Returns:
        `grain.IterDataset` of `(pictures, labels)`, `len(photographs) // batch_size` batches per
        epoch.

    Raises:
        ImportError: If grain is not installed.
    """
    grain = import_grain()

    def load(position, rng):
        seed = rng.integers(2**31)
        crop = RandomCrop(photographs.size, rng, crop_area or LEAST_AREA)
        return *photographs.read(position, crop), seed

    def finish(batch):
        pictures, labels, seeds = batch
        if augmentation:
            pictures = change(pictures, seeds[0], augmentation)
        if erasing:  # with numbers that have nothing to do with those of `change`
            pictures = random_erasing(pictures, seeds[0] + 1, erasing)
        return pictures, labels

    in_epoch = len(photographs) // batch_size * batch_size
    order = grain.MapDataset.range(len(photographs)).seed(seed).shuffle().repeat(epochs)
    # Cut after the random part, whose numbers depend on the place in the whole run.
    files = order.random_map(load).slice(slice(first_epoch * in_epoch, epochs * in_epoch))
    # pillow decodes and scales without Python's lock, so threads are enough. The buffer holds
    # pictures: two batches, whatever their size.
    pictures = files.to_iter_dataset(grain.ReadOptions(
        num_threads=os.cpu_count() or 1, prefetch_buffer_size=2 * batch_size))
    return pictures.batch(batch_size, drop_remainder=True).map(finish)

