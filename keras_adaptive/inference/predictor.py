"""Adaptive classification: every picture stops at the first exit that is sure enough."""

import dataclasses
import numbers

import keras
import numpy as np

from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.evaluation.calibration import check_temperatures, with_temperature
from keras_adaptive.evaluation.risk import choose_safe_threshold
from keras_adaptive.evaluation.thresholds import NEVER, ThresholdSearch
from keras_adaptive.graph import exit_macs, split_into_stages
from keras_adaptive.inference.engines.keras_engine import make_keras_engine
from keras_adaptive.inference.inputs import NetworkInput
from keras_adaptive.inference.logits import exits_give_logits
from keras_adaptive.inference.prediction import Prediction
from keras_adaptive.inference.progress import show_progress
from keras_adaptive.inference.schedule import Schedule


class EarlyExitPredictor:
    """Classify pictures with a network of several exits, computing no more than each one needs.

    The network runs stage by stage. A picture leaves at the first exit whose confidence, its
    largest class probability, reaches the threshold; the last exit in use takes the rest. Later
    stages run on the survivors only. The answers are those that the whole network's outputs give
    when the choice of exits is made afterwards.

    Args:
        model: Functional `keras.Model` with one output per exit, the earliest first, each of shape
            `(batch, classes)`; or the name of a zoo model; or None for the zoo's default.
        threshold: float, or one per exit of the model, at least 0. Compared in float32. Above 1
            nobody leaves early; the value of the last exit in use counts for nothing.
        engine: `"auto"` or `"keras"`: Keras on the backend in use; or an object with the methods of
            `KerasEngine`.
        exits: sequence of ints, counted from 1, or None for all: the exits in use. At the others
            nobody leaves, and what only they need is not computed.
        max_exit: int or None. No exit beyond this one is used.
        from_logits: bool or `"auto"`. Whether the outputs are logits; see `exits_give_logits`.
        preprocess: function or None. Gets a NumPy batch of pictures, 0 to 255, and returns the
            batch that the network takes: for networks that do not normalise inside.
        class_names: sequence of strings. Defaults to `model.class_names`, where there is one.
        temperatures: sequence of floats, one per exit of the model, or None. Logits are divided by
            them, which makes confidences honest; see `fit_temperatures`. Classes stay, but for
            probabilities that rounding makes equal.

    Raises:
        ValueError: If an argument does not fit the model.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.GlobalAveragePooling2D()(inputs)
    >>> exit1, x = keras.layers.Dense(2)(x), keras.layers.Dense(4)(x)
    >>> model = keras.Model(inputs, [exit1, keras.layers.Dense(2)(x)])
    >>> predictor = EarlyExitPredictor(model, threshold=0.5)
    >>> predictor.predict(np.zeros((3, 8, 8, 3), "uint8")).exits
    array([1, 1, 1])

    Reference:
        Dynamic evaluation of [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 3.
    """

    def __init__(self, model=None, threshold=0.8, *, engine="auto", exits=None, max_exit=None,
                 from_logits="auto", preprocess=None, class_names=None, temperatures=None):
        self.model = _find_model(model)
        self.num_exits = len(self.model.outputs)
        self.num_classes = _check_outputs(self.model)
        self.exits = _choose_exits(exits, max_exit, self.num_exits)
        self.threshold = threshold
        self.class_names = self._choose_class_names(class_names)
        self.temperatures = check_temperatures(
            [1.0] * self.num_exits if temperatures is None else temperatures, self.num_exits)
        self._input = NetworkInput(self.model, preprocess)
        self._part_in_use = _with_exits(self.model, self.exits)
        self._costs = {}

        is_logits = exits_give_logits(self.model, from_logits)
        self._engine = _find_engine(engine)
        self._engine.prepare(
            split_into_stages(self._part_in_use),
            [is_logits[number - 1] for number in self.exits],
        )

    @property
    def threshold(self):
        """float, or tuple of floats, one per exit. May be set between predictions."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold):
        self._threshold = _check_threshold(threshold, self.num_exits, self.model.name)

    def predict(self, images, batch_size=64, verbose="auto"):
        """Classify pictures.

        Args:
            images: pictures with values 0 to 255: an array, paths, a folder, a data set, a
                generator and more; see `open_pictures`. Read as a stream, so a data set may be
                larger than memory.
            batch_size: int. Most pictures in one run of a stage. It changes speed and memory, not
                the answers.
            verbose: bool or `"auto"`. Whether a progress bar is shown on standard error; `"auto"`
                shows it on a terminal when the work is long.

        Returns:
            `Prediction`, in the order of the pictures.

        Raises:
            ValueError: If the pictures are not what the network takes, or the network's outputs are
                no numbers. `UnreadablePicturesError`, a `ValueError`, names all bad files.
            TypeError: If `images` is none of the accepted forms.
        """
        _check_batch_size(batch_size)
        pictures = self._input.open(images)
        schedule = Schedule(self._engine, self._thresholds_in_use(), int(batch_size),
                            self._read)
        answers, size = [], self._input.size
        with show_progress(pictures.num_pictures, batch_size, verbose) as advance:
            for batch in self._input.batches(pictures, int(batch_size)):
                size = batch.shape[1:3]
                for answer in schedule.admit(batch):
                    answers.append(answer)
                    advance(len(answer.positions))
            for answer in schedule.finish():
                answers.append(answer)
                advance(len(answer.positions))
        return self._collect(answers, size, pictures.files)

    def calibrate(self, x, y, *, macs=None, accuracy=None, max_loss=None, confidence=0.95,
                  batch_size=64, verbose="auto"):
        """Choose thresholds on labelled pictures, and use them from now on.

        Exactly one of `macs`, `accuracy` and `max_loss` says what is wanted.

        Args:
            x: pictures, as for `predict`, which the network was not trained on.
            y: int array of labels, one per picture.
            macs: number. The thresholds found most accurate whose mean multiply-adds are within it;
                see `smooth` of `ThresholdSearch`.
            accuracy: float. The cheapest thresholds that are as accurate as this share.
            max_loss: float. One threshold for all exits that loses at most this share of accuracy
                against the last exit in use, on all pictures of this kind, with probability
                `confidence`; see `choose_safe_threshold`. The other two promise something for these
                pictures only.
            confidence: float in (0, 1).
            batch_size, verbose: as for `predict`.

        Returns:
            `ChosenThresholds` with one threshold per exit of the model, and what they give here.

        Raises:
            ValueError: If not one of the three is given, `y` does not fit, or `accuracy` is not
                reached.
        """
        if sum(value is not None for value in (macs, accuracy, max_loss)) != 1:
            raise ValueError(
                "`calibrate` takes one of `macs`, `accuracy` and `max_loss`. "
                f"Received: macs={macs}, accuracy={accuracy}, max_loss={max_loss}."
            )
        outputs, size = self._all_exits(x, y, batch_size, verbose)
        costs = self._count_macs(size)[0]
        if max_loss is not None:
            chosen = choose_safe_threshold(outputs, costs, max_loss, confidence)
        elif macs is not None:
            chosen = ThresholdSearch(outputs, costs, smooth=True).within(macs)
        else:
            chosen = ThresholdSearch(outputs, costs).reaching(accuracy)
        thresholds, shares = [NEVER] * self.num_exits, [0.0] * self.num_exits
        for number, threshold, share in zip(self.exits, chosen.thresholds, chosen.exit_shares):
            thresholds[number - 1], shares[number - 1] = threshold, share
        self.threshold = thresholds
        return dataclasses.replace(chosen, thresholds=self.threshold, exit_shares=tuple(shares))

    def _all_exits(self, images, labels, batch_size, verbose):
        """Return the answers of all exits in use, as `ExitOutputs`, and the pictures' size."""
        _check_batch_size(batch_size)
        pictures = self._input.open(images)
        per_batch, size, num_pictures = [], self._input.size, 0
        with show_progress(pictures.num_pictures, batch_size, verbose) as advance:
            for batch in self._input.batches(pictures, int(batch_size)):
                size, carried, answers = batch.shape[1:3], [batch], []
                positions = num_pictures + np.arange(len(batch))
                num_pictures += len(batch)
                for stage in range(1, len(self.exits) + 1):
                    probabilities, carried = self._engine.run(stage, carried, int(batch_size))
                    answers.append(self._read(stage, positions, probabilities))
                per_batch.append(np.stack(answers))
                advance(len(batch))
        if not per_batch:
            raise ValueError("`x` holds no pictures; thresholds are chosen on some thousand.")
        labels = np.asarray(labels)
        if labels.reshape(-1).shape != (num_pictures,) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"`y` takes one whole number per picture: {num_pictures}. Received: shape "
                f"{labels.shape}, dtype {labels.dtype}."
            )
        return ExitOutputs(np.concatenate(per_batch, axis=1), labels.reshape(-1)), size

    def _read(self, stage, positions, probabilities):
        """Check what an exit in use gave, and scale it with its temperature."""
        number = self.exits[stage - 1]
        sums = probabilities.sum(axis=1)
        if not np.isfinite(sums).all():
            raise ValueError(
                f"Exit {number} of {self.model.name!r} gave NaN or infinity for picture "
                f"{positions[~np.isfinite(sums)][0]}. Its weights are damaged, or its precision "
                "does not hold its values."
            )
        # Half-precision softmaxes of thousands of classes miss 1 by less than this.
        if np.any(np.abs(sums - 1) > 0.05):
            raise ValueError(
                f"Exit {number} of {self.model.name!r} should give probabilities, but they add up "
                f"to {sums[np.argmax(np.abs(sums - 1))]:.3g}. Pass `from_logits=True` if it gives "
                "logits."
            )
        return with_temperature(probabilities, self.temperatures[number - 1])

    def _collect(self, answers, size, files):
        num_pictures = sum(len(answer.positions) for answer in answers)
        probabilities = np.zeros((num_pictures, self.num_classes), np.float32)
        stages = np.ones(num_pictures, np.int64)
        for answer in answers:
            probabilities[answer.positions] = answer.probabilities
            stages[answer.positions] = answer.stage
        macs, full_macs = self._count_macs(size)
        return Prediction(
            class_ids=probabilities.argmax(axis=1),
            confidences=probabilities.max(axis=1),
            probabilities=probabilities,
            exits=np.array(self.exits)[stages - 1],
            macs=np.array(macs)[stages - 1],
            full_macs=full_macs,
            num_exits=self.num_exits,
            class_names=self.class_names,
            files=files,
        )

    def _thresholds_in_use(self):
        per_exit = np.broadcast_to(np.float32(self.threshold), self.num_exits)
        return per_exit[np.array(self.exits) - 1]

    def _count_macs(self, size):
        """Return the cost of the exits in use and of the whole network, for pictures of a size."""
        if size is None:  # there were no pictures, and the network takes any size
            return [0] * len(self.exits), 0
        if size not in self._costs:
            known = getattr(self.model, "exit_macs", None) if self._input.size else None
            whole = known or exit_macs(_with_size(self.model, (*size, self._input.shape[-1])))
            if self.exits == tuple(range(1, len(self.exits) + 1)):
                in_use = whole[: len(self.exits)]
            else:  # the heads that are left out cost nothing
                in_use = exit_macs(_with_size(self._part_in_use, (*size, self._input.shape[-1])))
            self._costs[size] = in_use, whole[-1]
        return self._costs[size]

    def _choose_class_names(self, class_names):
        if class_names is None:
            class_names = getattr(self.model, "class_names", None)
        if class_names is None:
            return None
        if isinstance(class_names, str) or len(class_names) != self.num_classes:
            raise ValueError(
                f"`class_names` takes one name per class: {self.num_classes} for "
                f"{self.model.name!r}. Received {len(class_names)}: {class_names!r}."
            )
        return tuple(class_names)

    def __repr__(self):
        return (
            f"EarlyExitPredictor(model={self.model.name!r}, threshold={self.threshold}, "
            f"exits={self.exits} of {self.num_exits})"
        )


def _check_batch_size(batch_size):
    if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be an integer, at least 1. Received: {batch_size!r}."
        )


def _find_model(model):
    if model is None or isinstance(model, str):
        from keras_adaptive import zoo

        return zoo.load(zoo.DEFAULT_MODEL if model is None else model, pretrained=True)
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` is a Keras model with one output per exit, the name of a zoo model, or None "
            f"for the zoo's default. Received: {type(model).__name__}."
        )
    # A subclassed model has no outputs, and what needs them would not say why.
    if not getattr(model, "outputs", None) or isinstance(model.output, dict):
        raise ValueError(
            f"`model` must be Functional, with a list of outputs, the earliest exit first. "
            f"{model.name!r} is not: make a `keras.Model(inputs, [exit1, exit2, ...])` of it."
        )
    return model


def _check_outputs(model):
    """Return the number of classes that all exits agree on."""
    shapes = [tuple(output.shape) for output in model.outputs]
    if any(len(shape) != 2 or shape != shapes[0] for shape in shapes) or (shapes[0][1] or 0) < 2:
        raise ValueError(
            "Every output of `model` must have the shape (batch, classes), with the same 2 or more "
            f"classes. The outputs of {model.name!r} have the shapes "
            f"{', '.join(map(str, shapes))}."
        )
    return shapes[0][1]


def _choose_exits(exits, max_exit, num_exits):
    """Return the numbers of the exits in use, increasing."""
    everyone = range(1, num_exits + 1)
    chosen = sorted(set(everyone if exits is None else exits))
    if not chosen or not all(_is_int(number) and number in everyone for number in chosen):
        raise ValueError(
            f"`exits` names exits in use, from 1 to {num_exits}, at least one. "
            f"Received: {exits!r}."
        )
    if max_exit is None:
        return tuple(int(number) for number in chosen)
    if not _is_int(max_exit) or max_exit not in everyone:
        raise ValueError(
            f"`max_exit` is the number of an exit, from 1 to {num_exits}. Received: {max_exit!r}."
        )
    if chosen[0] > max_exit:
        raise ValueError(
            f"`max_exit`={max_exit} leaves none of the `exits` {chosen} in use. "
            f"Raise it to {chosen[0]}, or name an earlier exit."
        )
    return tuple(int(number) for number in chosen if number <= max_exit)


def _is_int(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check_threshold(threshold, num_exits, model_name):
    """Return a float, or a tuple of one float per exit."""
    try:
        values = np.asarray(threshold, np.float64)
    except (TypeError, ValueError):
        values = None
    if values is None or values.ndim > 1:
        raise ValueError(
            f"`threshold` takes one number, or one per exit: {num_exits} for {model_name!r}. "
            f"Received: {threshold!r}."
        )
    if values.ndim == 1 and len(values) != num_exits:
        raise ValueError(
            f"`threshold` takes one number, or one per exit: {num_exits} for {model_name!r}. "
            f"Received {len(values)}: {values.tolist()}. Exits that are not in use, and the last "
            "one, which takes the rest, have a value too, and it counts for nothing."
        )
    if not np.all(values >= 0):
        raise ValueError(
            "`threshold` must be a confidence of 0 or more, and not NaN: at 0 everybody leaves at "
            f"the first exit, above 1 nobody leaves early. Received: {threshold!r}."
        )
    return values.item() if values.ndim == 0 else tuple(values.tolist())


def _find_engine(engine):
    if engine in ("auto", "keras"):
        return make_keras_engine()
    methods = ("prepare", "run", "take", "join")
    if isinstance(engine, str) or not all(hasattr(engine, method) for method in methods):
        raise ValueError(
            '`engine` is "auto", "keras", or an object with the methods '
            f"{', '.join(methods)}. Received: {engine!r}."
        )
    return engine


def _with_exits(model, exits):
    """Return the part of a model that the given exits need; layers are shared, not copied."""
    if len(exits) == len(model.outputs):
        return model
    outputs = [model.outputs[number - 1] for number in exits]
    return keras.Model(model.inputs, outputs, name=model.name)


def _with_size(model, shape):
    """Return the model for one size of pictures; the model itself is left as it is."""
    if None not in model.inputs[0].shape[1:]:
        return model
    # Calling a model leaves a trace on it: a second model of the same graph takes that.
    same = keras.Model(model.inputs, model.outputs)
    pictures = keras.Input(shape, dtype=model.inputs[0].dtype)
    return keras.Model(pictures, same(pictures))
