"""Adaptive classification: every picture stops at the first exit that is sure enough."""

import dataclasses

import numpy as np

from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.evaluation.calibration import check_temperatures, with_temperature
from keras_adaptive.evaluation.risk import choose_safe_threshold
from keras_adaptive.evaluation.thresholds import NEVER, ThresholdSearch
from keras_adaptive.inference.arguments import (
    check_batch_size,
    check_threshold,
    choose_class_names,
    choose_exits,
)
from keras_adaptive.inference.carried import Carried
from keras_adaptive.inference.engines import prepare_engine
from keras_adaptive.inference.inputs import NetworkInput
from keras_adaptive.inference.prediction import Prediction
from keras_adaptive.inference.progress import show_progress
from keras_adaptive.inference.schedule import Schedule
from keras_adaptive.inference.stage_runner import StageRunner


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
        engine: `"auto"`, the fastest that is installed; one of `engines.ENGINES`; or an object with
            the methods of `KerasEngine`. Engines other than `"keras"` work on a copy of the
            weights; see `refresh`.
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

    >>> import keras
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
        # Not at the top: exported stages run without Keras.
        from keras_adaptive.inference.keras_network import KerasNetwork

        network = KerasNetwork(model, from_logits)
        self._set_up(network, threshold, exits, max_exit, preprocess, class_names, temperatures)
        self.model = network.model
        self._wanted_engine = engine
        self.refresh()

    @classmethod
    def from_export(cls, folder, threshold=None, *, engine="auto", max_exit=None, preprocess=None,
                    temperatures=None):
        """Make a predictor of exported stages, which needs neither Keras nor a backend of it.

        Args:
            folder: path of a folder that `export_stages` wrote.
            threshold: as above, or None for the thresholds that were exported.
            engine: string. Name of the engine that runs the files.
            max_exit, preprocess, temperatures: as above.

        Returns:
            `EarlyExitPredictor`, whose `model` is None.

        Raises:
            ValueError: If the folder is no export, a file in it was changed, or an argument does
                not fit it.
        """
        from keras_adaptive.exported import ExportedNetwork

        network = ExportedNetwork.from_folder(folder)
        predictor = cls.__new__(cls)
        predictor._set_up(network, network.thresholds if threshold is None else threshold, None,
                          max_exit, preprocess, None, temperatures)
        predictor._stages = StageRunner(network.make_engine(engine), len(predictor.exits))
        return predictor

    def _set_up(self, network, threshold, exits, max_exit, preprocess, class_names, temperatures):
        """Check and keep everything but the model and the engine."""
        self.model = None
        self._mark = None
        self.name = network.name
        self.num_exits = network.num_exits
        self.num_classes = network.num_classes
        self.exits = choose_exits(exits, max_exit, network.num_exits)
        self.threshold = threshold
        self.class_names = choose_class_names(class_names, network)
        self.temperatures = check_temperatures(
            [1.0] * self.num_exits if temperatures is None else temperatures, self.num_exits)
        self._network = network
        self._input = NetworkInput(network, preprocess)
        self._costs = {}

    def refresh(self):
        """Take the model's weights as they are now.

        Engines other than `"keras"` work on a copy. `predict` notices by itself when the model was
        trained or has loaded other weights, as it looks at some variables of all parts; after
        changing single layers by hand, call this.
        """
        network = self._network
        engine = prepare_engine(self._wanted_engine, network.stages(self.exits),
                                network.gives_logits(self.exits))
        self._stages = StageRunner(engine, len(self.exits))
        self._mark = network.weights_mark() if getattr(engine, "is_snapshot", False) else None

    def _refresh_if_changed(self):
        if self._mark is not None and self._mark != self._network.weights_mark():
            self.refresh()

    @property
    def threshold(self):
        """float, or tuple of floats, one per exit. May be set between predictions."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold):
        self._threshold = check_threshold(threshold, self.num_exits, self.name)

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
        batch_size = check_batch_size(batch_size)
        self._refresh_if_changed()
        pictures = self._input.open(images)
        schedule = Schedule(self._stages, self._thresholds_in_use(), batch_size, self._read)
        answers, size = [], self._input.size
        with show_progress(pictures.num_pictures, batch_size, verbose) as advance:
            for batch in self._input.batches(pictures, batch_size):
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
        batch_size = check_batch_size(batch_size)
        self._refresh_if_changed()
        pictures = self._input.open(images)
        per_batch, size, num_pictures = [], self._input.size, 0
        with show_progress(pictures.num_pictures, batch_size, verbose) as advance:
            for batch in self._input.batches(pictures, batch_size):
                size, answers = batch.shape[1:3], []
                carried = Carried.of({self._stages.input_key: batch}, len(batch))
                positions = num_pictures + np.arange(len(batch))
                num_pictures += len(batch)
                for stage in range(1, len(self.exits) + 1):
                    probabilities = self._stages.run(stage, carried, batch_size)
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
                f"Exit {number} of {self.name!r} gave NaN or infinity for picture "
                f"{positions[~np.isfinite(sums)][0]}. Its weights are damaged, or its precision "
                "does not hold its values."
            )
        # Half-precision softmaxes of thousands of classes miss 1 by less than this.
        if np.any(np.abs(sums - 1) > 0.05):
            raise ValueError(
                f"Exit {number} of {self.name!r} should give probabilities, but they add up "
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
            self._costs[size] = self._network.count_macs(self.exits, size)
        return self._costs[size]

    def __repr__(self):
        return (
            f"EarlyExitPredictor(model={self.name!r}, threshold={self.threshold}, "
            f"exits={self.exits} of {self.num_exits})"
        )
