"""Train a recipe: phase after phase, resumable after every epoch that is validated."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import math
import pathlib
import statistics
import time

import h5py
import keras
import numpy as np

from keras_adaptive.files import write_whole
from keras_adaptive.models.precision import use_precision
from keras_adaptive.training.averaging import STATISTICS_PICTURES, AveragedWeights
from keras_adaptive.training.bad_files import keep_bad_files, raising_own_failure
from keras_adaptive.training.datasets import check_channels, check_labels, steps_per_epoch
from keras_adaptive.training.photographs import Photographs

STATE = "state.h5"  # everything needed to go on after the last validated epoch
BEST = "best.weights.h5"  # weights of the best full-size epoch on the validation part
LOG = "log.csv"


def train(recipe, data, folder, verbose="auto"):
    """Train a recipe's model with `model.fit` and return it with its best weights.

    After every epoch that is validated (all of them, but for the recipe's `validate_every`) the
    state is written to `folder`; called again with the same folder, the run goes on after the last
    such epoch and ends with the weights of an undisturbed run, where the backend computes
    deterministically. The best epoch is chosen among those at full picture size, by the accuracy
    on the validation part, in the mean over the exits: pictures leave at all of them, and a single
    exit varies by chance. The test part is not touched. With `average` in the recipe, what is
    validated and kept as the best are the averaged weights, see `AveragedWeights`; the state is
    that of the run itself.

    Args:
        recipe: `Recipe`.
        data: `Data` or `PhotographData`. Files of the latter that cannot be read are replaced by
            others, listed in `bad_files.csv` as they are met and in a warning at the end.
        folder: path. Made if missing. Holds `state.h5`, `best.weights.h5` and `log.csv`.
        verbose: as in `keras.Model.fit`.

    Returns:
        The trained `MultiExitModel`, float32, with the data's class names.

    Raises:
        ValueError: If the folder holds the state of another recipe or of other data, the data has
            labels that the network has no class for or names for another number of classes, or the
            loss is no longer a number: the state before is kept then.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keep_bad_files(data, folder)
    state = _State(folder / STATE, recipe, data)
    done = state.epoch
    if done < recipe.training.epochs:
        _check_sizes(recipe)
    _trim_log(folder / LOG, done)
    last_epoch = 0
    for phase in recipe.training.phases:
        last_epoch += phase.epochs
        if done >= last_epoch:
            continue
        keras.utils.set_random_seed(recipe.training.seed)
        with use_precision(recipe.training.precision):
            model = recipe.build(phase.image_size)
        arguments = recipe.fit_arguments(data, phase.image_size, done, last_epoch,
                                         phase.random_erasing)
        _check_data(data, recipe, model)
        learner = recipe.learner(model)
        recipe.compile(learner, arguments["steps_per_epoch"])
        learner.optimizer.build(learner.trainable_variables)
        if done:
            state.restore(learner)
        else:
            recipe.start(model)
        if keras.backend.backend() == "torch":
            from keras_adaptive.training.cuda_graphs import can_capture, capture_steps

            if can_capture(learner):
                capture_steps(learner)
        full_size = phase.image_size == recipe.image_size
        average = _average(recipe, data, phase.image_size)
        callbacks = [_Clock(state), *([average] if average else []),
                     _Log(folder / LOG, append=done > 0),
                     _KeepState(state, folder, full_size, model, average)]
        with raising_own_failure(data):
            learner.fit(**arguments, callbacks=callbacks, verbose=verbose)
        done = last_epoch
    if isinstance(data.train, Photographs):
        for part in (data.train, data.validation):
            part.warn_of_bad_files()
    return load_best(recipe, data, folder)


def load_best(recipe, data, folder):
    """Return the model of a run with its best weights, the data's class names and input rule.

    Args:
        recipe, data, folder: as `train` had them.
    """
    model = recipe.build()
    model.load_weights(pathlib.Path(folder) / BEST)
    model.class_names = list(data.class_names)
    if isinstance(data.train, Photographs):
        model.input_rule = data.train.resized(recipe.image_size).input_rule
    return model


def finished_epochs(recipe, data, folder):
    """Return how many epochs a run has finished.

    Args:
        recipe, data, folder: as `train` had them; the recipe's precision does not count.

    Raises:
        ValueError: If the folder holds the state of another recipe or of other data.
    """
    return _State(pathlib.Path(folder) / STATE, recipe, data, with_precision=False).epoch


def training_speed(recipe, data, folder):
    """Return the pictures per second that a run learned at full size.

    Validation, the writing of files, and epochs in which the backend compiles are left out: the
    first of a phase, and the first after an interruption.

    Args:
        recipe, data, folder: as `train` had them; the recipe's precision does not count.

    Returns:
        Float, the median over the epochs at full picture size; `None` if none of them is on record.

    Raises:
        ValueError: If the folder holds the state of another recipe or of other data.
    """
    seconds = _State(pathlib.Path(folder) / STATE, recipe, data, with_precision=False).seconds
    sizes = [phase.image_size for phase in recipe.training.phases for _ in range(phase.epochs)]
    full = [taken for taken, size in zip(seconds, sizes)
            if size == recipe.image_size and not math.isnan(taken)]
    pictures = steps_per_epoch(data.train, recipe.training.batch_size) * recipe.training.batch_size
    return pictures / statistics.median(full) if full else None


def _check_sizes(recipe):
    """Raise before the first epoch if a later phase has no network, or one of other weights."""
    sizes = dict.fromkeys(phase.image_size for phase in recipe.training.phases)
    if len(sizes) == 1:  # the first phase builds that network at once
        return
    shapes = {}
    for size in sizes:
        try:
            network = recipe.learner(recipe.build(size))
        except ValueError as error:
            raise ValueError(
                f"The network of recipe {recipe.name!r} cannot be built for the phase of {size} "
                f"pixels: {error}"
            ) from error
        shapes[size] = [tuple(weight.shape) for weight in network.weights]
    first, *others = shapes
    for size in others:
        if shapes[size] != shapes[first]:
            raise ValueError(
                f"The network of recipe {recipe.name!r} has other weights for pictures of {size} "
                f"pixels than for those of {first}, so that what one phase learned is no start for "
                "the other. Give all phases one `image_size`, or sizes whose halves stay whole."
            )


def _check_data(data, recipe, model):
    """Raise before the first epoch what would be found after it, or never."""
    for part in (data.train, data.validation):
        check_labels(part, model.output_shape)
        check_channels(part, model.input_shape)
    shape = model.output_shape[0] if isinstance(model.output_shape, list) else model.output_shape
    if len(data.class_names) != shape[-1]:
        raise ValueError(
            f"The network of recipe {recipe.name!r} tells {shape[-1]} classes apart, the data has "
            f"names for {len(data.class_names)}. Take the data set that the recipe names, "
            f"{recipe.data['name']!r}, or set `num_classes` in the recipe's table [model]."
        )


def _average(recipe, data, image_size):
    """Return the callback that validates averaged weights, or `None` where the recipe has none."""
    if not recipe.training.average:
        return None
    # Those of the first epoch, whenever a run goes on: the same statistics, the same best epoch.
    pictures = recipe.fit_arguments(data, image_size, 0, 1)["x"]
    return AveragedWeights(pictures, -(-STATISTICS_PICTURES // recipe.training.batch_size))


def _trim_log(path, epochs):
    """Keep the lines of the epochs that the state knows: a kill may come between the two files."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:epochs + 1]
    write_whole(path, lambda partial: pathlib.Path(partial).write_text("".join(lines),
                                                                       encoding="utf-8"))


class _State:
    """The file from which a run goes on: weights, optimizer, number of finished epochs."""

    def __init__(self, path, recipe, data, with_precision=True):
        self.path = path
        self.recipe = recipe
        self.digest = _digest(data)
        self.epoch = 0
        self.best = -1.0
        self.seconds = []  # that each epoch learned; no number where an earlier version did not say
        if path.exists():
            try:
                written_for, digest = self._read()
            except (OSError, KeyError) as error:
                raise ValueError(
                    f"{path} cannot be read as the state of a run: {error}. Choose another folder, "
                    "or delete this one to start anew."
                ) from error
            if _full_size(written_for) != recipe.image_size:
                self.best = -1.0  # lengthened by phases of another size, which begin anew
            if not _is_continued(written_for, _fingerprint(recipe), with_precision):
                raise ValueError(
                    f"{path} holds the state of another recipe than {recipe.name!r}, or the recipe "
                    "was edited since. Choose another folder, or delete this one to start anew."
                )
            if digest != self.digest:
                raise ValueError(
                    f"{path} holds the state of a run on other pictures than these "
                    f"{len(data.train):,} training and {len(data.validation):,} validation ones. "
                    "Give the data set that the run began with, or choose another folder."
                )

    def _read(self):
        """Take what the file says of the run. Return for which recipe and data it was written."""
        with h5py.File(self.path) as file:
            self.epoch = int(file.attrs["epoch"])
            # States of earlier versions have the last exit's accuracy alone, under another name.
            self.best = float(file.attrs.get("best_mean", -1.0))
            seconds = file["seconds"][()] if "seconds" in file else []
            self.seconds = [*seconds, *[math.nan] * (self.epoch - len(seconds))]
            # States of earlier versions do not say the data.
            return file.attrs["recipe"], file.attrs.get("data", self.digest)

    def restore(self, model):
        """Give the model the weights and its optimizer the state that the file holds."""
        with h5py.File(self.path) as file:
            for group, variables in _groups(model):
                for i, variable in enumerate(variables):
                    variable.assign(file[group][str(i)][()])

    def write(self, model):
        def fill(path):
            with h5py.File(path, "w") as file:
                file.attrs.update(recipe=_fingerprint(self.recipe), data=self.digest,
                                  epoch=self.epoch, best_mean=self.best)
                file["seconds"] = self.seconds[:self.epoch]
                for group, variables in _groups(model):
                    for i, variable in enumerate(variables):
                        file[f"{group}/{i}"] = keras.ops.convert_to_numpy(variable)
        write_whole(self.path, fill)


class _Clock(keras.callbacks.Callback):
    """Tell the state how long an epoch learned. It comes before callbacks that work themselves."""

    def __init__(self, state):
        super().__init__()
        self.state = state
        self.is_first = True  # in which the backend compiles

    def on_epoch_begin(self, epoch, logs=None):
        self.begun, self.learned = time.perf_counter(), None

    def on_test_begin(self, logs=None):
        self.learned = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = (self.learned or time.perf_counter()) - self.begun
        self.state.seconds.append(math.nan if self.is_first else seconds)
        self.is_first = False


class _Log(keras.callbacks.CSVLogger):
    """A log that keeps its columns: Keras's guesses them anew in every call of `fit`."""

    def on_train_begin(self, logs=None):
        is_there = self.append and pathlib.Path(self.filename).exists()
        super().on_train_begin(logs)
        if is_there:
            with open(self.filename, newline="", encoding="utf-8") as file:
                self.keys = next(csv.reader(file))[1:]  # without the epoch


class _KeepState(keras.callbacks.Callback):
    """Write the state after every epoch that is validated, and the weights of the best."""

    def __init__(self, state, folder, select, network, average=None):
        super().__init__()
        self.state = state
        self.folder = folder
        self.select = select
        self.network = network  # whose weights are kept; `self.model` is what learns
        self.average = average

    def on_epoch_end(self, epoch, logs=None):
        # Some accuracy comes even of weights that are no numbers: it would be kept as the best.
        lost = [name for name in ("loss", "val_loss")
                if name in logs and not math.isfinite(logs[name])]
        if lost:
            raise ValueError(
                f"After epoch {epoch + 1} {' and '.join(lost)} is no finite number: training "
                f"diverged. {self.folder} keeps what was before. Lower the recipe's "
                "`peak_learning_rate` or lengthen its `warmup_epochs`, and start in a new folder."
            )
        if "val_loss" not in logs:  # no epoch to validate, see `Training.validate_every`
            return
        # With a single output Keras leaves its name out.
        num_exits = getattr(self.model, "num_exits", 1)
        exits = [f"exit{number}_" for number in range(1, num_exits + 1)] if num_exits > 1 else [""]
        accuracy = statistics.fmean(logs[f"val_{name}accuracy"] for name in exits)
        if self.select and accuracy > self.state.best:
            self.state.best = accuracy
            with self.average.in_place() if self.average else contextlib.nullcontext():
                write_whole(self.folder / BEST, self.network.save_weights)
        self.state.epoch = epoch + 1
        self.state.write(self.model)


def _groups(model):
    return ("weights", model.weights), ("optimizer", model.optimizer.variables)


def _digest(data):
    """Return what tells data sets apart: class names, labels, and some pictures if in memory."""
    digest = hashlib.sha256(json.dumps(list(data.class_names)).encode())
    for part in (data.train, data.validation):
        # Labels of `tensorflow_datasets` come with the pictures; their numbers are known before.
        digest.update(np.asarray(part.x if part.y is None else part.y, "int64").tobytes())
        if not isinstance(part, Photographs):  # files may move
            digest.update(part.x[::max(1, len(part) // 64)].tobytes())
    return digest.hexdigest()


def _fingerprint(recipe):
    """Return what makes a run another run. Settings at their default are left out: a version that
    brings a new one goes on with the states of earlier versions. How often the weights are looked
    at does not change them."""
    training = {
        field.name: getattr(recipe.training, field.name)
        for field in dataclasses.fields(recipe.training)
        if getattr(recipe.training, field.name) not in (field.default, (), {})
        and field.name != "validate_every"
    }
    training["phases"] = [
        {key: value for key, value in dataclasses.asdict(phase).items() if value}
        for phase in recipe.training.phases
    ]
    record = {"model": recipe.model, "data": recipe.data, "training": training}
    if recipe.thumbnet:
        record["thumbnet"] = {
            field.name: getattr(recipe.thumbnet, field.name)
            for field in dataclasses.fields(recipe.thumbnet)
            if getattr(recipe.thumbnet, field.name) != field.default}
    return json.dumps(record, sort_keys=True)


def _full_size(fingerprint):
    """Return the picture size of the last phase of the recipe that a state was written for."""
    try:
        return json.loads(fingerprint)["training"]["phases"][-1]["image_size"]
    except (ValueError, KeyError, TypeError, IndexError):  # written by another program
        return None


def _is_continued(written_for, wanted, with_precision):
    """Return whether a state is the recipe's, or that of a recipe which it only lengthens.

    A run may go on with phases that were added after it was finished, if the first of them restarts
    the learning rate: what came before is then as it would have been.
    """
    try:
        before, now = json.loads(written_for), json.loads(wanted)
        phases, longer = before["training"].pop("phases"), now["training"].pop("phases")
        before["training"].pop("validate_every", None)  # in states of earlier versions
        if not with_precision:
            before["training"].pop("precision", None), now["training"].pop("precision", None)
    except (ValueError, KeyError, TypeError):  # written by another program
        return False
    added = longer[len(phases):]
    return (before == now and longer[:len(phases)] == phases
            and (not added or added[0].get("restart", False)))
