"""Networks by name, with weights where a training has left some in the folder `zoo`.

A zoo name is family and data set, `ranet_cifar10`; it stands for one published configuration, or
for the network of the recipe of that name, and the function of that name builds the family's others
as variants. All take pictures with values 0 to 255: the data set's normalisation is the first node
of their graph.
"""

import dataclasses
import inspect
import pathlib
import re
import sys
import warnings

from keras_adaptive import calibrated, content, entries, models, recipes, weight_files
from keras_adaptive.content import DEFAULT_MODEL  # noqa: F401
from keras_adaptive.names import did_you_mean


def _variants():
    """Return, for each zoo name, the published configurations by variant, the default first.

    A variant with the zoo's own name is the network of the recipe of that name.
    """
    for data in ("cifar10", "cifar100"):
        yield f"ranet_{data}", {
            # Growing linearly is the budgeted experiments' choice: the first exit is cheaper.
            variant: f"ranet_{variant.replace('_even', '')}_{growth}_{data}"
            for growth, ending in (("lg", ""), ("even", "_even"))
            for variant in (f"c1{ending}", f"c2{ending}", f"c3{ending}")
        }
        yield f"msdnet_{data}", {
            # Of the networks growing linearly, the one with five blocks costs as much as C-1.
            **{f"b{blocks}": f"msdnet_lingrow_b{blocks}_{data}" for blocks in (5, 4, 6, 7, 8)},
            **{f"b{blocks}_even": f"msdnet_even_b{blocks}_base4_step2_{data}"
               for blocks in (6, 7, 8, 10, 11)},
        }
    yield "ranet_imagenet", {
        "tiny200": "ranet_imagenet",  # for 200 of the 1000 classes
        "i1": "ranet_i1_step8_imagenet",  # I-1 and I-2 of the paper
        "i2": "ranet_i2_step8_imagenet",
        "i1_step6": "ranet_i1_step6_imagenet",
        "i2_step6": "ranet_i2_step6_imagenet",
        "script": "ranet_script_imagenet",
    }
    yield "msdnet_imagenet", {
        "tiny200": "msdnet_imagenet",
        **{variant: f"msdnet_{variant}_imagenet"
           for variant in ("step4", "step6", "step7", "base4_step6", "base4_step7")},
    }


VARIANTS = dict(_variants())


class NoWeightsError(ValueError):
    """Raised when pretrained weights are asked for and no training has left any yet."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A network that `load` knows.

    Attributes:
        name: string for `load`.
        configuration: string. The published configuration that it stands for.
        has_weights: bool. Whether `pretrained=True` works.
        num_parameters: int or `None`. Trainable ones; known where there are weights, as is the
            rest.
        exit_macs: tuple of ints or `None`. Multiply-adds of a picture that leaves at each exit.
        figures: dict. What was measured of the weights, such as `test_accuracy` per exit.
        license: string or `None`. Licence of the weights.
    """

    name: str
    configuration: str
    has_weights: bool = False
    num_parameters: int | None = None
    exit_macs: tuple | None = None
    figures: dict = dataclasses.field(default_factory=dict)
    license: str | None = None


def list_models():
    """Return a `ModelInfo` for every network that `load` knows, those with weights first.

    A configuration that a zoo name stands for is listed once, under that name; `load` takes the
    published name too.
    """
    shipped = _entries()
    infos = [
        ModelInfo(name, entry.configuration, True, entry.num_parameters, tuple(entry.exit_macs),
                  entry.figures, entry.license)
        for name, entry in sorted(shipped.items())
    ]
    infos += [ModelInfo(name, _configuration(name)) for name in VARIANTS if name not in shipped]
    defaults = {_default(name) for name in VARIANTS}
    infos += [ModelInfo(name, name) for name in models.PUBLISHED
              if name not in defaults and name not in shipped]
    return infos


def load(name, /, pretrained=False, weights=None, **arguments):
    """Return a network by name.

    Args:
        name: string. A zoo name such as `"ranet_cifar10"`, or the name of a published
            configuration such as `"ranet_c2_lg_cifar10"`.
        pretrained: bool. Whether the network gets the weights of the zoo, checked against their
            sha256, or fresh ones.
        weights: path or string `https://…` of a file of weights for this network, as the zoo has
            them, in place of `pretrained`; or `None`. `#sha256=` and the digest behind a URL are
            checked. The file is kept in `$KERAS_HOME/keras_adaptive`. A `.weights.h5` file of
            Keras, as `keras-adaptive train` writes, goes to `load_weights` of the network instead.
        **arguments: override the network's own, such as `num_classes=5`. With `pretrained=True`,
            those that change no weight, such as `pooling="global", input_shape=(48, 48, 3)`, and
            `num_classes`: another number gives fresh exits on the trained trunk.

    Returns:
        `MultiExitModel` for pictures with values 0 to 255. `input_rule` is set; with
        `pretrained=True` `class_names` and `exit_macs` are too, the latter where the picture size
        is the one that was trained.

    Raises:
        ValueError: If the name or an argument is unknown. `NoWeightsError`, if there are no
            weights; `WeightsError`, if their file is damaged or does not fit the arguments.

    Example:

    >>> load("ranet_c1_lg_cifar10", num_classes=5).num_exits
    6
    """
    if arguments.get("num_classes", 0) is None:  # the network's own
        del arguments["num_classes"]
    if pretrained and weights is not None:
        raise ValueError(
            "`pretrained=True` takes the zoo's weights, `weights` names a file of others. Received "
            f"both: weights={weights!r}."
        )
    if pretrained:
        return find_entry(name).load(arguments)
    model = _build(name, arguments)
    if weights is not None:
        weight_files.load(model, weights)
    return model


def _build(name, arguments):
    """Return a network with fresh weights."""
    shipped = _entries(name)
    _check_known(name, shipped)
    if name in shipped:
        return shipped[name].build(arguments)
    configuration = _configuration(name)
    data = configuration.rsplit("_", 1)[1]
    known = _recipe_arguments(name) if name in _of_recipes() else {}
    model = models.build(
        configuration, **{"name": name, "normalization": data, **known, **arguments})
    model.input_rule = entries.input_rule(model, model.input_rule)
    return model


def _configuration(name):
    """Return the published configuration that a name stands for."""
    default = _default(name) if name in VARIANTS else name
    return recipes.load(name).model["configuration"] if default in VARIANTS else default


def _recipe_arguments(name):
    recipe = recipes.load(name)
    arguments = {key: value for key, value in recipe.model.items() if key != "configuration"}
    return {"input_shape": (recipe.image_size, recipe.image_size, 3), **arguments}


def find_entry(name):
    """Return what the zoo keeps of a trained network, by any name that `load` takes.

    Args:
        name: string.

    Returns:
        `keras_adaptive.entries.Entry`.

    Raises:
        ValueError: If the name is unknown. `NoWeightsError`, if there are no weights.
    """
    shipped = _entries(name)
    if name in shipped:
        return shipped[name]
    if name in models.PUBLISHED:  # the zoo may have it under its own name
        name = next((zoo_name for zoo_name in VARIANTS
                     if zoo_name in shipped and _default(zoo_name) == name), name)
    if name not in shipped:
        name = next((entry.name for entry in shipped.values() if entry.name not in VARIANTS
                     and entry.configuration == name
                     and set(entry.arguments) <= {"input_shape", "normalization"}), name)
    _check_known(name, shipped)
    if name not in shipped:
        raise NoWeightsError(_no_weights(name, _configuration(name), shipped))
    return shipped[name]


def thresholds(name, /, *, macs=None, accuracy=None, max_loss=None):
    """Return calibrated thresholds of a trained network, for `EarlyExitPredictor`.

    They were chosen on the validation part that `thresholds.json` names; cost and accuracy are
    meant on average over pictures like those. Exactly one of the three says what is wanted.

    Args:
        name: string, of a network with weights.
        macs: number. The most accurate stored thresholds whose mean multiply-adds of a picture are
            within it.
        accuracy: float. The cheapest stored thresholds that are as accurate as this share.
        max_loss: float. The stored threshold that loses at most this share of accuracy against the
            last exit; see `keras_adaptive.evaluation.choose_safe_threshold`.

    Returns:
        Tuple of floats, one per exit.

    Raises:
        ValueError: If the name is unknown, not one of the three is given, nothing stored satisfies
            it, or the thresholds were made for other weights. `NoWeightsError`, if there are no
            weights.

    Example:

    >>> from keras_adaptive import EarlyExitPredictor
    >>> chosen = thresholds("ranet_cifar10", macs=30e6)  # doctest: +SKIP
    >>> predictor = EarlyExitPredictor("ranet_cifar10", threshold=chosen)  # doctest: +SKIP
    """
    entry = find_entry(name)
    path = entry.folder / calibrated.THRESHOLDS
    if not path.is_file():
        raise ValueError(
            f"{entry.name!r} has no calibrated thresholds: {path} does not exist. "
            f"`keras-adaptive card {entry.name} --data DATA` makes it."
        )
    stored = calibrated.CalibratedThresholds.from_file(path)
    if stored.num_exits != len(entry.exit_macs) or stored.weights_sha256 not in (
            None, entry.weights["sha256"]):
        raise ValueError(
            f"{path} was made for other weights than {entry.name!r} has. "
            f"`keras-adaptive card {entry.name} --data DATA` makes it anew."
        )
    return stored.choose(macs, accuracy, max_loss).thresholds


def default_thresholds(name, /):
    """Return the thresholds that a predictor of a network's name takes where none are given.

    Of the calibrated ones they promise the least loss of accuracy: `thresholds(name, max_loss=…)`
    with the smallest loss stored.

    Args:
        name: string, of a network with weights.

    Returns:
        Tuple of floats, one per exit; `None` where no thresholds were calibrated.

    Raises:
        ValueError: As `thresholds`.
    """
    entry = find_entry(name)
    if not (entry.folder / calibrated.THRESHOLDS).is_file():
        return None
    return thresholds(entry.name, max_loss=min(calibrated.MAX_LOSSES))


def save_entry(model, name, folder=None, *, recipe, data_set=None, figures=None, dtype="float32",
               license="Apache-2.0"):
    """Write a trained network as an entry of the zoo: `<name>/model.json` and `weights.h5`.

    Earlier files of these names are replaced, both at once; others, such as results and a card, are
    left alone.

    Args:
        model: what `recipe.build()` gave, trained. Its `class_names` and `input_rule` are kept.
        name: string for `load`: lower-case letters, digits and `_`.
        folder: path in which the folder `name` is made; `None` for the zoo.
        recipe: `Recipe` that the model was trained with.
        data_set: string or `None`. The data set that it learned, as `load_data` takes it, or the
            recipe's.
        figures: dict or `None`. What was measured, in values that JSON has, with everything needed
            to understand it: `{"test_accuracy": [0.85, …], "data": "cifar10", "epochs": 14, …}`.
            `test_accuracy` has a share per exit.
        dtype: `"float32"` or `"float16"`, of the file.
        license: string. Licence of the weights.

    Returns:
        Path of the entry's folder.

    Raises:
        ValueError: If the name is malformed, the model is not the recipe's, or `figures` do not
            fit the model.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            "`name` has lower-case letters, digits and underscores, such as 'ranet_cifar10'. "
            f"Received: {name!r}."
        )
    folder = pathlib.Path(folder or content.folder("zoo")) / name
    entries.write(model, folder, recipe, entries.data_set_name(data_set or recipe.data["name"]),
                  dict(figures or {}), dtype, license)
    return folder


def _check_known(name, shipped):
    if name not in shipped and name not in VARIANTS and name not in models.PUBLISHED:
        known = [*shipped, *VARIANTS, *models.PUBLISHED]
        raise ValueError(
            f"Unknown model {name!r}.{did_you_mean(name, known)} "
            "`zoo.list_models()` and `keras-adaptive list` show all."
        )


def _default(name):
    return next(iter(VARIANTS[name].values()))


def _entries(wanted=None):
    """Return the zoo's entries by name.

    Args:
        wanted: string or `None`. A malformed record is an error if it is the one of this name, and
            a warning otherwise: the other networks are there nevertheless.
    """
    found = {}
    for path in sorted(content.folder("zoo").glob(f"*/{entries.RECORD}")):
        name = path.parent.name
        try:
            found[name] = entries.Entry.from_file(path)
        except ValueError as error:
            if name == wanted:
                raise
            warnings.warn(f"The weights of {name!r} are left out: {error}", stacklevel=3)
    return found


def _no_weights(name, configuration, shipped):
    trained = [f"{key!r} ({_what_it_is(key, entry, configuration)})"
               for key, entry in shipped.items()]
    # A recipe for the zoo may change the configuration; it trains what its zoo name stands for.
    matching = [recipe for recipe in map(recipes.load, recipes.list_recipes())
                if recipe.about.zoo_name == name or (
                    recipe.model["configuration"] == configuration
                    and name not in _of_recipes()
                    and recipe.about.zoo_name not in _of_recipes())]
    if matching:
        # The recipe that is meant for the zoo; else the shortest training.
        recipe = min(matching, key=lambda recipe: (recipe.about.zoo_name != name,
                                                   recipe.training.epochs))
        cure = f"Train it with `{recipe.about.command or f'keras-adaptive train {recipe.name}'}`."
    else:
        cure = (
            "To train it, copy a recipe such as 'ranet_cifar10', which `keras-adaptive list` "
            f"shows, set its `configuration` to {configuration!r}, and run `keras-adaptive train` "
            "with the copy."
        )
    return (
        f"No weights exist yet for {name!r}"
        + (f" (configuration {configuration!r})" if name != configuration else "")
        + f". Weights exist for: {', '.join(trained) or 'none so far'}. "
        f"`pretrained=False` gives the network with fresh weights. {cure}"
    )


def _what_it_is(name, entry, configuration):
    """Return the configuration of an entry, and how it differs where that is `configuration`."""
    network, published = models.PUBLISHED[entry.configuration]
    known = {key: parameter.default
             for key, parameter in inspect.signature(network.__init__).parameters.items()}
    known.update(published)
    # JSON has lists for tuples.
    own = {key: value for key, value in entry.arguments.items() if key != "normalization"
           and value != (list(known[key]) if isinstance(known[key], tuple) else known[key])}
    if entry.configuration != configuration or not own:
        return entry.configuration
    variant = f"the variant {next(iter(VARIANTS[name]))!r}, " if name in VARIANTS else ""
    differences = ", ".join(f"{key}={value!r} in place of {known[key]!r}"
                            for key, value in own.items())
    return f"{variant}another network than {configuration!r}: {differences}"


def _of_recipes():
    """Return the zoo names that stand for the network of a recipe."""
    return {name for name in VARIANTS if _default(name) == name}


def _constructor(name):
    variants = VARIANTS[name]
    default = next(iter(variants))

    def construct(variant=default, pretrained=False, num_classes=None, weights=None, **arguments):
        if not isinstance(variant, str) or variant not in variants:
            raise ValueError(
                f"`variant` of {name!r} is one of {list(variants)}. Received: {variant!r}."
                f"{did_you_mean(variant, variants)}"
            )
        chosen = name if variant == default else variants[variant]
        model = load(chosen, pretrained, weights, num_classes=num_classes, **arguments)
        if pretrained:
            print(find_entry(chosen).describe(), file=sys.stderr)
        return model

    lines = "\n".join(f'            "{key}": `{value}`'
                      + (", as the recipe of that name has it" if value == name else "")
                      for key, value in variants.items())
    construct.__name__ = construct.__qualname__ = name
    construct.__doc__ = (
        f"Return the zoo's `{name}`, or a variant of it; see `load`.\n\n"
        "    Args:\n"
        f"        variant: string. The published configuration:\n{lines}\n"
        "        pretrained: bool. Whether it gets trained weights, where there are some; what "
        "they\n            are is printed on standard error.\n"
        "        num_classes: int or `None`. Another number than the trained one gives fresh exits "
        "on\n            the trained trunk.\n"
        "        weights: path or `https` URL of other weights; see `load`.\n"
        "        **arguments: override the configuration's, such as `input_shape=(48, 48, 3)`.\n"
    )
    return construct


ranet_cifar10 = _constructor("ranet_cifar10")
ranet_cifar100 = _constructor("ranet_cifar100")
ranet_imagenet = _constructor("ranet_imagenet")
msdnet_cifar10 = _constructor("msdnet_cifar10")
msdnet_cifar100 = _constructor("msdnet_cifar100")
msdnet_imagenet = _constructor("msdnet_imagenet")
