"""What the zoo keeps of one training: `model.json`, the record, beside the weights."""

import dataclasses
import json
import pathlib
import re

from keras_adaptive import models, recipes, weight_files
from keras_adaptive.files import change_folder_whole, read_json, sha256, write_whole
from keras_adaptive.graph import exit_macs, exit_parameters
from keras_adaptive.names import check_keys, did_you_mean
from keras_adaptive.picture_files import InputRule
from keras_adaptive.training.tfds_examples import is_tfds_name
from keras_adaptive.weights import WeightsError, read_weights, write_weights

RECORD = "model.json"
WEIGHTS = "weights.h5"

# Names of data sets for people, and the number of the classes that theirs are a part of.
_TITLES = {"cifar10": ("CIFAR-10", 10), "cifar100": ("CIFAR-100", 100),
           "imagenet": ("ImageNet", 1000), "tiny_imagenet": ("ImageNet", 1000)}

_ALIASES = {"imagenet2012": "imagenet"}  # what `tensorflow_datasets` calls them

_WEIGHTS_KEYS = ("file", "sha256", "size_bytes", "dtype")
_ACCURACIES = ("test_accuracy", "test_top5_accuracy", "validation_accuracy")  # a share per exit


def data_set_name(source):
    """Return how the zoo calls a data set, such as `"cifar10"`.

    Args:
        source: string, as `load_data` takes it: a file or folder is called as its name says,
            examples of `tensorflow_datasets` without their version.

    Example:

    >>> data_set_name("tfds:imagenet2012/5.1.0"), data_set_name("data/my-pets_v2.npz")
    ('imagenet', 'my-pets_v2')
    """
    if not is_tfds_name(source):
        return pathlib.Path(source).stem
    name = re.sub(r"[:/]\d+\.\d+\.\d+$", "", str(source).partition(":")[2])
    return _ALIASES.get(name, name)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A trained network, as its record tells it.

    Attributes:
        folder: path of the entry.
        title, paper: strings. What the network is, and where it comes from.
        builder: string. Name of the network's class.
        configuration: string in `keras_adaptive.models.PUBLISHED`.
        arguments: dict. What overrides the published arguments.
        input_rule: dict, see `MultiExitModel`.
        class_names: list of strings or `None`.
        exit_macs: list of ints.
        num_parameters: int. Trainable ones.
        weights: dict with `file`, `sha256`, `size_bytes` and `dtype`.
        recipe: string. Name of the recipe.
        data_set: string. The data set that the weights learned, see `data_set_name`.
        figures: dict, what was measured.
        license: string.
    """

    folder: pathlib.Path
    title: str
    paper: str
    builder: str
    configuration: str
    arguments: dict
    input_rule: dict
    class_names: list | None
    exit_macs: list
    num_parameters: int
    weights: dict
    recipe: str
    data_set: str
    figures: dict
    license: str

    @classmethod
    def from_file(cls, path):
        """Read a record.

        Args:
            path: path of a `model.json`.

        Raises:
            ValueError: If the file is no JSON, or has unknown, missing or malformed entries.
        """
        path = pathlib.Path(path)
        record = read_json(path)
        known = [field.name for field in dataclasses.fields(cls) if field.name != "folder"]
        if isinstance(record, dict):  # records of before this key was there have none
            record.setdefault("data_set", None)
        check_keys(path, record, known)
        _Checks(path).record(record)
        if record["data_set"] is None:
            record["data_set"] = _learned_data_set(record)
        return cls(folder=path.parent, **record)

    @property
    def name(self):
        """string. The name of the entry's folder."""
        return self.folder.name

    @property
    def num_classes(self):
        """int. Number of classes that the weights tell apart."""
        return self._arguments["num_classes"]

    @property
    def _arguments(self):
        """dict. The network's arguments, published ones and the entry's own."""
        _, published = models.PUBLISHED[self.configuration]
        return {**published, **self.arguments}

    def describe(self):
        """Return in one line what the weights are: classes, and accuracy at the last exit."""
        title, number = _TITLES.get(self.data_set, (self.data_set, self.num_classes))
        of = f" of the {number}" if self.num_classes < number else ""
        measured = "".join(
            f", {name} {self.figures[key][-1]:.1%} at the last exit"
            for name, key in (("top-1", "test_accuracy"), ("top-5", "test_top5_accuracy"))
            if self.figures.get(key))
        return f"{self.name}: weights for {self.num_classes}{of} {title} classes{measured}"

    def write_figures(self, figures):
        """Replace what the record says was measured; the weights stay as they are.

        Args:
            figures: dict, see `keras_adaptive.zoo.save_entry`.

        Raises:
            ValueError: If `figures` do not fit the network.
        """
        _check_figures(self.name, len(self.exit_macs), figures)
        record = read_json(self.folder / RECORD)
        _write_record(self.folder, {**record, "figures": figures})

    def build(self, arguments):
        """Return the network with fresh weights.

        Args:
            arguments: dict. What overrides the entry's own arguments.
        """
        model = models.build(
            self.configuration, **{"name": self.name, **self.arguments, **arguments})
        model.input_rule = input_rule(model, model.input_rule or self.input_rule)
        return model

    def load(self, arguments):
        """Return the network with the entry's weights.

        Args:
            arguments: dict, as in `build`. With another `num_classes` the exits stay fresh, and
                the model has the `class_names` that are given, or none.

        Raises:
            WeightsError: If the weights are not there, are damaged, or do not fit the arguments.
        """
        self._check_same_weights(arguments)
        model = self.build(arguments)
        is_whole = arguments.get("num_classes", self.num_classes) == self.num_classes
        path = weight_files.find(self.folder / self.weights["file"], self.weights["sha256"])
        read_weights(model, path, self.weights["sha256"], self.weights["size_bytes"],
                     fresh=() if is_whole else getattr(
                         model, "classifier_names", model.output_names))
        if not is_whole:
            return model
        if model.class_names is None:  # none given
            model.class_names = self.class_names
        # With the same weights, only another picture size changes the cost.
        if list(model.input_shape[1:3]) == self.input_rule["size"]:
            model.exit_macs = self.exit_macs
        return model

    def _check_same_weights(self, arguments):
        """Refuse networks that would take these weights, of the same names and shapes, in vain."""
        known_arguments = {**models.network_defaults({"configuration": self.configuration}),
                           **self._arguments}
        for key in ("ratio", "downscaler", "boosted_exits", "normalization"):
            known = known_arguments.get(key)  # of networks that have it
            # `normalization=None` is for pictures that come with it.
            if arguments.get(key) is not None and known not in (None, arguments[key]):
                raise WeightsError(
                    f"The weights of {self.name!r} are for {key}={known!r}. Received: "
                    f"{arguments[key]!r}. Leave it out, or train a network with it."
                )


def input_rule(model, known=None):
    """Return how a photograph becomes an input of the model.

    Args:
        model: `keras.Model` for pictures.
        known: dict or `None`. A rule to follow at the size that the model takes.

    Returns:
        Dict as `MultiExitModel` takes it; `known` itself where the model takes any size.
    """
    if None in model.input_shape[1:3]:
        return known
    return {"resize": "shorter_side_then_centre_crop", "interpolation": "bicubic",
            **(known or {}), "size": list(model.input_shape[1:3])}


def write(model, folder, recipe, data_set, figures, dtype, license):
    """Write an entry; see `keras_adaptive.zoo.save_entry`."""
    built = recipe.build().configuration
    _check_recipe(model, recipe.name, built)
    _check_figures(model.name, model.num_exits, figures)
    # Of a record and weights that do not belong together nothing can be loaded.
    change_folder_whole(folder, lambda partial: _fill(
        partial, model, built, recipe, data_set, figures, dtype, license))


def _fill(folder, model, built, recipe, data_set, figures, dtype, license):
    write_weights(model, folder / WEIGHTS, dtype)
    arguments = {key: value for key, value in recipe.model.items() if key != "configuration"}
    record = {
        "title": recipe.about.title,
        "paper": recipe.about.paper,
        "builder": type(model).__name__,
        "configuration": recipe.model["configuration"],
        "arguments": {**arguments, "input_shape": built["input_shape"]},
        "input_rule": input_rule(model, model.input_rule),
        "class_names": model.class_names,
        "exit_macs": exit_macs(model),
        "num_parameters": exit_parameters(model)[-1],
        "weights": {
            "file": WEIGHTS,
            "sha256": sha256(folder / WEIGHTS),
            "size_bytes": (folder / WEIGHTS).stat().st_size,
            "dtype": dtype,
        },
        "recipe": recipe.name,
        "data_set": data_set,
        "figures": figures,
        "license": license,
    }
    _write_record(folder, record)


def _write_record(folder, record):
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / RECORD, lambda path: path.write_text(text, encoding="utf-8"))


def _check_figures(name, num_exits, figures):
    for key in ("test_accuracy", "test_top5_accuracy"):
        accuracy = figures.get(key)
        if accuracy is not None and len(accuracy) != num_exits:
            raise ValueError(
                f"`figures[{key!r}]` has a share per exit: {num_exits} for {name!r}. Received "
                f"{len(accuracy)}: {accuracy}."
            )
    try:
        json.dumps(figures, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`figures` holds what JSON has: text, finite Python numbers, lists. {error}."
        ) from error


def _learned_data_set(record):
    """Return the data set of a record that does not name it by a key.

    It is the one that the figures begin with; without such figures, that of the recipe where the
    package has it, else that of the configuration.
    """
    named = re.split("[:,]", record["figures"].get("data", ""))[0]
    if named:
        known = named.lower().replace("-", "")  # such as "CIFAR-10"
        return known if known in _TITLES else _ALIASES.get(named, named)
    if record["recipe"] in recipes.list_recipes():
        return data_set_name(recipes.load(record["recipe"]).data["name"])
    return record["configuration"].rsplit("_", 1)[1]


class _Checks:
    """Checks the entries of one record; every complaint names the file and the entry."""

    def __init__(self, path):
        self._path = path

    def record(self, record):
        for key in ("title", "paper", "builder", "configuration", "recipe", "license"):
            self._text(key, record[key])
        if record["data_set"] is not None:
            self._text("data_set", record["data_set"])
        configuration = record["configuration"]
        if configuration not in models.PUBLISHED:
            self._fail("configuration", "the name of a published one", configuration,
                       did_you_mean(configuration, models.PUBLISHED))
        for key in ("arguments", "figures"):
            if not isinstance(record[key], dict):
                self._fail(key, "an object", record[key])
        self._input_rule(record["input_rule"])
        if record["class_names"] is not None:
            for name in self._list("class_names", record["class_names"]):
                self._text("class_names", name)
        for macs in self._list("exit_macs", record["exit_macs"]):
            self._count("exit_macs", macs)
        self._count("num_parameters", record["num_parameters"])
        self._weights(record["weights"])
        self._figures(record["figures"])

    def _input_rule(self, rule):
        if not isinstance(rule, dict):
            self._fail("input_rule", "an object", rule)
        for side in self._list("input_rule, size", rule.get("size")):
            self._count("input_rule, size", side)
        for key in ("resize", "interpolation"):
            self._text(f"input_rule, {key}", rule.get(key))
        try:
            InputRule.from_dict(rule, 3)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error

    def _weights(self, weights):
        check_keys(f"{self._path}, weights", weights, _WEIGHTS_KEYS)
        for key in ("file", "sha256", "dtype"):
            self._text(f"weights, {key}", weights[key])
        if pathlib.PurePath(weights["file"]).name != weights["file"]:
            self._fail("weights, file", "a name in the same folder", weights["file"])
        if not re.fullmatch("[0-9a-f]{64}", weights["sha256"]):
            self._fail("weights, sha256", "64 hexadecimal digits", weights["sha256"])
        self._count("weights, size_bytes", weights["size_bytes"])

    def _figures(self, figures):
        self._text("figures, data", figures.get("data", "none"))
        for key in _ACCURACIES:
            for share in self._list(f"figures, {key}", figures.get(key, [0])):
                if type(share) not in (int, float) or not 0 <= share <= 1:
                    self._fail(f"figures, {key}", "shares from 0 to 1", share)

    def _list(self, where, values):
        if not isinstance(values, list) or not values:
            self._fail(where, "a list that is not empty", values)
        return values

    def _text(self, where, value):
        if not isinstance(value, str) or not value:
            self._fail(where, "text", value)

    def _count(self, where, value):
        if type(value) is not int or value < 1:
            self._fail(where, "a whole number of 1 or more", value)

    def _fail(self, where, expected, received, hint=""):
        raise ValueError(
            f"{self._path}, {where}: expected {expected}. Received: {received!r:.200}.{hint} "
            "Correct it, or take the file as the package has it."
        )


def _check_recipe(model, recipe_name, built):
    own = getattr(model, "configuration", {})
    differences = [f"{key} ({own.get(key)!r}, {value!r} in the recipe)"
                   for key, value in built.items() if own.get(key) != value]
    if differences:
        raise ValueError(
            f"`model` is not the network of the recipe {recipe_name!r}. They differ in "
            f"{', '.join(differences)}. Give the recipe that the model was trained with."
        )
