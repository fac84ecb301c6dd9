"""The tables of a recipe: what may stand in them, and what is wrong with what does not."""

import dataclasses
import inspect

from keras_adaptive import models
from keras_adaptive.models.inputs import mean_and_std
from keras_adaptive.names import did_you_mean
from keras_adaptive.training.losses import LastExitDistillation

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# Arguments of networks that follow from the phases and the data.
_NOT_OF_A_RECIPE = ("input_shape", "class_names", "input_rule", "exit_macs", "name")
_TOML = {tuple: "list", dict: "table"}  # types as TOML calls them


@dataclasses.dataclass(frozen=True)
class Phase:
    """Consecutive epochs on pictures of one size.

    With `restart` the learning rate starts anew: this phase opens another cycle of warm-up and
    decay (SGDR, arXiv 1608.03983), which lengthens a run that is finished. Its
    `peak_learning_rate`, if given, holds for this cycle in place of the recipe's.

    `random_erasing` is the share of the pictures that lose a random rectangle, see
    `augment.random_erasing`. A network takes more of it the longer it has learned.
    """

    epochs: int
    image_size: int
    restart: bool = False
    peak_learning_rate: float = 0.0
    random_erasing: float = 0.0


@dataclasses.dataclass(frozen=True)
class About:
    """What a recipe is for."""

    title: str
    paper: str = ""
    command: str = ""
    zoo_name: str = ""


@dataclasses.dataclass(frozen=True)
class Training:
    """Settings of a training run with stochastic gradient descent.

    The learning rate rises linearly over `warmup_epochs`, then falls to zero along a cosine; anew
    from every phase with `restart`. With `drop_epochs` it starts at its peak and falls to a tenth
    at each of them instead.

    `exit_weights` weigh the exits' losses; `distillation` has the arguments of
    `LastExitDistillation`.

    `weight_decay` shrinks kernels beside the gradient step; `l2` is a penalty on all variables that
    momentum carries, as in the papers. A `weight_decay` of 1e-3 at a momentum of 0.9 pulls like an
    `l2` of 1e-4.

    `average` is the momentum of a moving average of the weights, such as 0.999; the averaged
    weights are validated and kept in place of the others. 0 for none.

    `crop_area` is the smallest share of a picture's area in a random resized crop; 0 is the papers'
    way: shifts by up to an eighth for arrays, at least 0.08 of the area for photographs.

    `rand_augment` has the arguments of Keras's `RandAugment`, which is used where it is there; an
    empty table is none.

    The weights are validated, the best kept and the state written after every `validate_every`
    epochs and at the end of each phase. On a fast machine these take longer than an epoch. A run
    that was begun may go on with another `validate_every`.
    """

    batch_size: int
    peak_learning_rate: float
    phases: tuple
    seed: int = 0
    precision: str = "float32"
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    l2: float = 0.0
    drop_epochs: tuple = ()
    label_smoothing: float = 0.0
    exit_weights: tuple = ()
    distillation: dict = dataclasses.field(default_factory=dict)
    average: float = 0.0
    crop_area: float = 0.0
    rand_augment: dict = dataclasses.field(default_factory=dict)
    validate_every: int = 1

    @property
    def epochs(self):
        """int. Epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def cycles(self):
        """tuple of ints. Epochs of each cycle of the learning rate."""
        return _cycles(self.phases)

    @property
    def peaks(self):
        """tuple of floats. The highest learning rate of each cycle."""
        return tuple(phase.peak_learning_rate or self.peak_learning_rate
                     for i, phase in enumerate(self.phases) if phase.restart or i == 0)


def _cycles(phases):
    cycles = [0]
    for phase in phases:
        if phase.restart and cycles[-1]:
            cycles.append(0)
        cycles[-1] += phase.epochs
    return tuple(cycles)


@dataclasses.dataclass(frozen=True)
class ThumbNetTraining:
    """How downscaler and student of a `ThumbNetCascade` learn.

    `teacher` is the zoo's name of the trained teacher; without one, it has fresh weights. `initial`
    is `"teacher"` or `"random"`, the student's first weights. The others are those of `ThumbNet`.
    """

    teacher: str = ""
    initial: str = "teacher"
    classification_weight: float = 1.0
    distillation_weight: float = 1.0
    feature_weight: float = 1.0
    moment_weight: float = 10.0
    temperature: float = 4.0

    def arguments(self):
        """Return the arguments for `learner` of the cascade."""
        arguments = dataclasses.asdict(self)
        return {key: arguments[key] for key in arguments if key not in ("teacher", "initial")}


def read_tables(name, content):
    """Return the attributes of a `Recipe` but its name, from the tables of its file.

    Args:
        name: string, for messages.
        content: dict of tables.

    Raises:
        ValueError: If a table or key is unknown or missing, or a value is wrong.
    """
    _check_keys(name, content,
                ("about", "model", "data", "training", "thumbnet", "expected"),
                required=("about", "model", "data", "training"))
    for table, values in content.items():
        _check_is_table(f"{name}, [{table}]", values)
    training = dict(content["training"])
    _check_record(f"{name}, [training]", training, Training)
    phases = []
    for phase in training["phases"]:
        _check_is_table(f"{name}, phases", phase)
        _check_record(f"{name}, phases", phase, Phase)
        _check_numbers(f"{name}, phases", phase, (
            ("peak_learning_rate", lambda x: 0 < x < float("inf"), "above 0"),
            ("random_erasing", lambda x: 0 <= x <= 1, "0 or more and at most 1")))
        if "peak_learning_rate" in phase and not phase.get("restart"):
            raise ValueError(
                f"{name}, phases: `peak_learning_rate` is for phases with `restart = true`, which "
                f"open a cycle; the first cycle's stands in [training]. Received: {phase}."
            )
        phases.append(Phase(**_with_floats(phase, Phase)))
    training["phases"] = tuple(phases)
    training = _with_floats(training, Training)
    _check_drops(name, training)
    _check_ranges(name, training)
    training["exit_weights"] = tuple(training.get("exit_weights", ()))
    _check_keys(f"{name}, distillation", training.get("distillation", {}),
                inspect.signature(LastExitDistillation).parameters)
    _check_keys(f"{name}, rand_augment", training.get("rand_augment", {}),
                ("num_ops", "factor"))
    if training.get("distillation"):
        try:
            LastExitDistillation(**training["distillation"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}, distillation: {error}") from error
    counts = [training["batch_size"], *(n for p in phases for n in (p.epochs, p.image_size))]
    if not phases or min(counts) < 1:
        raise ValueError(
            f"{name}: `phases` is a list with one phase or more; `epochs`, `image_size` and "
            f"`batch_size` are at least 1. Received: {content['training']}."
        )
    _check_keys(f"{name}, [data]", content["data"], ("name",), required=("name",))
    if not isinstance(content["data"]["name"], str):
        raise ValueError(f"{name}, [data]: `name` must be of type str. "
                         f"Received: {content['data']['name']!r}.")
    if not isinstance(content["model"].get("configuration", ""), str):
        raise ValueError(f"{name}, [model]: `configuration` must be of type str. "
                         f"Received: {content['model']['configuration']!r}.")
    if "configuration" not in content["model"]:
        raise ValueError(f"{name}, [model]: the key 'configuration' is missing.")
    _check_model(f"{name}, [model]", content["model"])
    if training.get("precision", "float32") not in PRECISIONS:
        raise ValueError(f"{name}: `precision` is one of {list(PRECISIONS)}. "
                         f"Received: {training['precision']!r}.")
    _check_record(f"{name}, [about]", content["about"], About)
    return {
        "about": About(**content["about"]),
        "model": dict(content["model"]),
        "data": dict(content["data"]),
        "training": Training(**training),
        "expected": dict(content.get("expected", {})),
        "thumbnet": _read_thumbnet(name, content),
    }


def _check_model(where, model):
    """Check names and types of a network's arguments; its class checks their values.

    Args:
        where: string, for messages.
        model: dict of the table's values, with the `configuration`.
    """
    kinds = {key: value for key, value in models.network_defaults(model).items()
             if key not in _NOT_OF_A_RECIPE}
    _check_keys(where, model, ("configuration", *kinds))
    for key, value in model.items():
        wanted = type(kinds.get(key))
        if wanted is type(None):  # the configuration, and what has no value by default
            _check_optional(where, key, value)
            continue
        is_right = (_is_number(value) if wanted is float else
                    isinstance(value, (list, tuple)) if wanted is tuple else type(value) is wanted)
        if not is_right:
            raise ValueError(f"{where}: `{key}` must be of type "
                             f"{_TOML.get(wanted, wanted.__name__)}. Received: {value!r}.")
        if wanted is tuple and not _are_whole(value):
            raise ValueError(f"{where}: `{key}` is a list of whole numbers. Received: {value!r}.")
    if "teacher_arguments" in model:
        _check_is_table(f"{where}: `teacher_arguments`", model["teacher_arguments"])
        _, published = models.PUBLISHED[model["configuration"]]
        teacher = model.get("teacher", published["teacher"])
        _check_model(f"{where}, teacher_arguments",
                     {"configuration": teacher, **model["teacher_arguments"]})


def _check_optional(where, key, value):
    """Check an argument whose value by default is `None`, which tells nothing of its type."""
    if value is None:  # of a recipe that is made in Python: TOML has no such value
        return
    if key == "normalization":
        try:
            mean_and_std(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    elif key in _OPTIONAL:
        is_right, wanted = _OPTIONAL[key]
        if not is_right(value):
            raise ValueError(f"{where}: `{key}` is {wanted}. Received: {value!r}.")


def _are_whole(values):
    return isinstance(values, (list, tuple)) and all(type(value) is int for value in values)


# What may stand for arguments that are `None` by default, and how to say it.
_OPTIONAL = {
    "bottleneck_factors": (_are_whole, "a list of whole numbers"),
    "head_filters": (lambda value: type(value) is int and value >= 1,
                     "a whole number of 1 or more"),
    "quantize": (lambda value: value == "ste", "'ste'"),
}


def _read_thumbnet(name, content):
    """Return the `ThumbNetTraining` of a recipe's tables, or `None`."""
    is_cascade = "teacher_arguments" in models.network_defaults(content["model"])
    if is_cascade != ("thumbnet" in content):
        raise ValueError(
            f"{name}: the table [thumbnet] says how a student learns from its teacher, and belongs "
            f"to a model that has both. It is {'missing for' if is_cascade else 'given with'} the "
            f"configuration {content['model']['configuration']!r}."
        )
    if not is_cascade:
        return None
    ignored = [key for key in ("exit_weights", "distillation", "average")
               if content["training"].get(key)]
    if ignored:
        raise ValueError(
            f"{name}, [training]: {ignored} are for networks all of whose exits learn. Leave them "
            "out; the weights of a student's losses stand in [thumbnet]."
        )
    values = content["thumbnet"]
    _check_record(f"{name}, [thumbnet]", values, ThumbNetTraining)
    if values.get("initial", "teacher") not in ("teacher", "random"):
        raise ValueError(f"{name}, [thumbnet]: `initial` is 'teacher' or 'random'. "
                         f"Received: {values['initial']!r}.")
    _check_numbers(f"{name}, [thumbnet]", values, (
        *((f"{term}_weight", lambda x: 0 <= x < float("inf"), "0 or more and finite")
          for term in ("classification", "distillation", "feature", "moment")),
        ("temperature", lambda x: 0 < x < float("inf"), "above 0 and finite")))
    return ThumbNetTraining(**values)


def _check_ranges(name, training):
    """Check the numbers that an optimizer or a loss would refuse late, or take and go wrong."""
    _check_numbers(name, training, (
        ("seed", lambda x: 0 <= x < 2**32, "0 or more and below 2**32"),
        ("peak_learning_rate", lambda x: 0 < x < float("inf"), "above 0"),
        ("warmup_epochs", lambda x: 0 <= x < float("inf"), "0 or more"),
        ("momentum", lambda x: 0 <= x < 1, "0 or more and below 1"),
        ("weight_decay", lambda x: 0 <= x < float("inf"), "0 or more"),
        ("l2", lambda x: 0 <= x < float("inf"), "0 or more"),
        ("average", lambda x: 0 <= x < 1, "0 or more and below 1"),
        ("label_smoothing", lambda x: 0 <= x < 1, "0 or more and below 1"),
        ("crop_area", lambda x: 0 <= x <= 1, "0 or more and at most 1"),
        ("validate_every", lambda x: x >= 1, "at least 1")))
    weights = training.get("exit_weights", ())
    if not all(_is_number(weight) and 0 <= weight < float("inf") for weight in weights) or (
            weights and not any(weights)):
        raise ValueError(
            f"{name}: `exit_weights` are numbers of 0 or more, not all 0. "
            f"Received: {list(weights)}."
        )
    shortest = min(_cycles(training["phases"]), default=0)
    if shortest and training.get("warmup_epochs", 0) > shortest:
        raise ValueError(
            f"{name}: `warmup_epochs` are no more than the epochs of a cycle of the learning rate, "
            f"of which the shortest has {shortest}. Received: {training['warmup_epochs']}."
        )
    augment = training.get("rand_augment", {})
    if not (isinstance(augment.get("num_ops", 1), int) and augment.get("num_ops", 1) >= 1
            and _is_number(augment.get("factor", 0)) and 0 <= augment.get("factor", 0) <= 1):
        raise ValueError(f"{name}, rand_augment: `num_ops` is a whole number of 1 or more, "
                         f"`factor` a number from 0 to 1. Received: {augment}.")


def _check_numbers(where, values, rules):
    for key, is_right, wanted in rules:
        if key in values and not is_right(values[key]):
            raise ValueError(f"{where}: `{key}` is {wanted}. Received: {values[key]}.")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_drops(name, training):
    """Check `drop_epochs`, which stand in place of a warm-up and a cosine."""
    drops = training["drop_epochs"] = tuple(training.get("drop_epochs", ()))
    if not all(_is_number(epoch) and epoch % 1 == 0 < epoch for epoch in drops) or sorted(
            set(drops)) != list(drops):
        raise ValueError(
            f"{name}: `drop_epochs` are numbers of epochs, increasing. Received: {list(drops)}."
        )
    epochs = sum(phase.epochs for phase in training["phases"])
    if drops and drops[-1] >= epochs:
        raise ValueError(
            f"{name}: `drop_epochs` lie within the {epochs} epochs of all phases. "
            f"Received: {list(drops)}."
        )
    if drops and (training.get("warmup_epochs") or any(p.restart for p in training["phases"])):
        raise ValueError(
            f"{name}: with `drop_epochs` the learning rate has no `warmup_epochs` and no `restart`."
        )


def _check_is_table(where, values):
    if not isinstance(values, dict):
        raise ValueError(f"{where} is a table of keys and values. Received: {values!r}.")


def _with_floats(values, record):
    """Return a table's values, whole numbers as floats where its record has such: Keras would
    count in whole numbers."""
    floats = {field.name for field in dataclasses.fields(record) if field.type is float}
    return {key: float(value) if key in floats else value for key, value in values.items()}


def _check_record(where, values, record):
    fields = dataclasses.fields(record)
    _check_keys(where, values, [field.name for field in fields],
                required=[f.name for f in fields if f.default is dataclasses.MISSING
                          and f.default_factory is dataclasses.MISSING])
    types = {int: int, float: (int, float), str: str, tuple: list, bool: bool, dict: dict}
    for field in fields:
        value = values.get(field.name)
        is_bool = isinstance(value, bool) and field.type is not bool  # an int in Python
        if field.name in values and (is_bool or not isinstance(value, types[field.type])):
            raise ValueError(
                f"{where}: `{field.name}` must be of type "
                f"{_TOML.get(field.type, field.type.__name__)}. Received: {value!r}."
            )


def _check_keys(where, values, known, required=()):
    for key in values:
        if key not in known:
            raise ValueError(
                f"{where}: unknown key {key!r}.{did_you_mean(key, known)} "
                f"Known are {sorted(known)}."
            )
    missing = [key for key in required if key not in values]
    if missing:
        raise ValueError(f"{where}: the keys {missing} are missing.")
