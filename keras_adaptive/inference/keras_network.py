"""The network of a predictor as a Keras model: its facts, its stages, its cost."""

import functools
import math
import pathlib
import tempfile
import threading
import weakref

import keras

from keras_adaptive.content import DEFAULT_MODEL
from keras_adaptive.evaluation.arguments import check_exit_macs
from keras_adaptive.graph import exit_macs, split_into_stages
from keras_adaptive.graph.flattening import fingerprint, trainable_variables
from keras_adaptive.graph.logits import exits_give_logits
from keras_adaptive.inference.engines.keras_engine import peek
from keras_adaptive.model_files import is_model_file, load_model_file
from keras_adaptive.models.multi_exit import plain

# The `fingerprint` of a model, and the lists of `Stage` that were made of it, by its exits in use.
# They serve whatever the weights are, but not another graph or other settings of layers. Threads
# take turns with it.
_STAGES = weakref.WeakKeyDictionary()
_STAGES_TURN = threading.RLock()
_MOST_SUBSETS = 4  # of exits, whose stages are kept
_MARK_SIZE = 1024  # numbers of a variable that is read to notice changed weights, at most


class KerasNetwork:
    """A `Network` that is a Functional Keras model in memory.

    Args:
        model: `keras.Model` with one output per exit; or the path of one as a `.keras` file; or the
            name of a zoo model; or None for the zoo's default. It is not changed.
        from_logits: bool or `"auto"`; see `exits_give_logits`.

    Attributes:
        model: the `keras.Model`.

    Raises:
        TypeError: If `model` is none of these.
        ValueError: If a file cannot be read, or the model has no graph, another kind of input than
            pictures, or outputs that are not probabilities or logits of the same classes.
    """

    def __init__(self, model=None, from_logits="auto"):
        model = DEFAULT_MODEL if model is None else model
        if is_model_file(model):
            model = load_model_file(model)
        self.model = _find_model(model)
        self._zoo_name = model if isinstance(model, str) else None
        self.name = self.model.name
        self.num_exits = len(self.model.outputs)
        self.num_classes = _check_outputs(self.model)
        self.input_shape = _check_input(self.model)
        self.input_dtype = self.model.inputs[0].dtype
        self.class_names = getattr(self.model, "class_names", None)
        self.input_rule = self.records().get("input_rule")
        self._gives_logits = exits_give_logits(self.model, from_logits)
        self._telling = {}  # variables that tell of changed weights, by exits in use

    @functools.cached_property
    def thresholds(self):
        """tuple of floats, or None. The calibrated thresholds of a zoo model given by its name."""
        if self._zoo_name is None:
            return None
        from keras_adaptive import zoo

        return zoo.default_thresholds(self._zoo_name)

    def stages(self, exits):
        """Return the list of `Stage` that the given exits need, for `prepare` of an engine."""
        exits = tuple(exits)
        with _STAGES_TURN:
            mark, known = _STAGES.get(self.model, (None, {}))
            if mark != fingerprint(self.model):
                known = {}
            stages = known.get(exits)
            if stages is None:
                stages = split_into_stages(_with_exits(self.model, exits))
                for oldest in list(known)[:1 - _MOST_SUBSETS]:
                    del known[oldest]
                known[exits] = stages
                # Taken now, as code of layers may keep something when it first runs.
                _STAGES[self.model] = fingerprint(self.model), known
            self._telling[exits] = _telling_variables(stages)
            return stages

    def gives_logits(self, exits):
        """Return, for each of the given exits, whether it gives logits; for `prepare`, too."""
        return [self._gives_logits[number - 1] for number in exits]

    def weights_mark(self, exits):
        """Return what is another when the model was trained or got other weights.

        Looking at all variables would take longer than classifying a picture. It is noticed when
        one of these changes: in each stage that the given exits need, the last weight, which
        belongs to the exit, and the first moving statistic, or weight where there is none, of
        `_MARK_SIZE` numbers at most; the optimizer that the model was compiled with, and the number
        of its steps. So `fit` is noticed whatever it trains, and so are other weights for the whole
        network or for an exit; other weights for a layer in between may not be.
        """
        optimizer = getattr(self.model, "optimizer", None)
        steps = [] if optimizer is None else [optimizer.iterations]
        if exits not in self._telling:
            self.stages(exits)
        values = [peek(v).tobytes() for v in (*steps, *self._telling[exits])]
        # The steps of a second optimizer may be as many as the first had made.
        return (None if optimizer is None else weakref.ref(optimizer)), values

    def to_bytes(self):
        """Return the model as the bytes of a `.keras` file."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.keras"
            self.model.save(path)
            return path.read_bytes()

    def records(self):
        """Return what the model carries beside its layers, as plain data: dict by attribute.

        A `MultiExitModel` saves it with its layers, other models do not.
        """
        records = {name: getattr(self.model, name, None) for name in ("input_rule", "exit_macs")}
        # Keras keeps lists and dicts that are attributes in containers of its own, and their
        # numbers may be NumPy's.
        return {name: plain(value) for name, value in records.items() if value is not None}

    def count_macs(self, exits, size):
        """See `Network`. What only exits that are not in use need costs nothing.

        But where the model carries `exit_macs` that are not those counted here, which do not tell
        what a head costs: an exit then costs what they say of it, whatever others are in use.
        """
        shape = (*size, self.input_shape[-1])
        is_fixed = None not in self.input_shape
        known = getattr(self.model, "exit_macs", None) if is_fixed else None
        if known is None:
            whole = exit_macs(_with_size(self.model, shape))
        else:
            whole = [int(macs) for macs in check_exit_macs(known, self.num_exits)]
        is_beginning = tuple(exits) == tuple(range(1, len(exits) + 1))
        if is_beginning or known is not None and whole != self._counted_macs:
            # Numbers of the caller's own cannot be mixed with those counted here.
            in_use = [whole[number - 1] for number in exits]
        else:  # the heads that are left out cost nothing
            in_use = exit_macs(_with_size(_with_exits(self.model, exits), shape))
        return in_use, whole[-1]

    @functools.cached_property
    def _counted_macs(self):
        """list of ints, or None where a layer has no rule. The costs of a network of fixed size."""
        try:
            return exit_macs(self.model)
        except ValueError:
            return None


def model_from_bytes(content, records):
    """Return the model of the bytes of a `.keras` file; code in it is refused.

    Args:
        content: bytes that `KerasNetwork.to_bytes` gave. Layers of one's own must be registered
            with Keras.
        records: dict that `KerasNetwork.records` gave.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        path.write_bytes(content)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    for name, value in records.items():
        setattr(model, name, value)
    return model


def _find_model(model):
    if isinstance(model, str):
        from keras_adaptive import zoo

        return zoo.load(model, pretrained=True)
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` is a Keras model with one output per exit, the path of one as a .keras file, "
            "the name of a zoo model, or None for the zoo's default. "
            f"Received: {type(model).__name__}."
        )
    # A subclassed model has no outputs, and what needs them would not say why.
    if not getattr(model, "outputs", None) or isinstance(getattr(model, "output", None), dict):
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


def _check_input(model):
    """Return the shape of the one input, without the batch."""
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] is None:
        raise ValueError(
            f"`model` must have one input, pictures of shape (batch, height, width, channels). "
            f"{model.name!r} has {len(shapes)} of shape {', '.join(map(str, shapes))}."
        )
    return shapes[0][1:]


def _telling_variables(stages):
    chosen = [v for stage in stages for v in _first_and_last(stage)]
    return list({id(v): v for v in chosen}.values())


def _first_and_last(stage):
    """Return the small variables of a stage that change with it, at most two; see `weights_mark`.

    Training changes the statistics in front also where the exit is frozen, and the exit also where
    all before it is.
    """
    weights, statistics = [], []
    for call in stage.calls:
        made = trainable_variables(call.operation)  # also where they are frozen now
        known = set(map(id, made))
        weights += made
        statistics += [v for v in getattr(call.operation, "weights", ()) if id(v) not in known]
    return _small(statistics or weights)[:1] + _small(weights or statistics)[-1:]


def _small(variables):
    small = [v for v in variables if math.prod(v.shape) <= _MARK_SIZE]
    return small or sorted(variables, key=lambda v: math.prod(v.shape))[:1]


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
