"""Networks by name: fresh ones, saved entries, and what is said where there are no weights."""

import dataclasses
import inspect
import json
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive import EarlyExitPredictor, content, models, recipes, zoo
from keras_adaptive.calibrated import CalibratedThresholds
from keras_adaptive.cards import EVALUATION
from keras_adaptive.entries import Entry
from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.evaluation.operating_points import read_points
from keras_adaptive.graph import exit_macs, exit_parameters
from keras_adaptive.models.thumbnet_cascade import ThumbNetCascade
from keras_adaptive.picture_files import InputRule
from keras_adaptive.weights import WeightsError

# Two sub-networks with an exit each.
TINY = {"scales": [1, 2], "growth_factors": [2, 1], "bottleneck_factors": [2, 1], "blocks": 1,
        "block_step": 1, "channels": 4, "growth_rate": 4, "layers_per_block": 2,
        "pooling": "global"}


@pytest.fixture(scope="module")
def recipe():
    """The recipe of the zoo's first resident, for a tiny network of ten classes."""
    recipe = recipes.load("ranet_cifar10")
    return dataclasses.replace(recipe, model={**recipe.model, **TINY})


@pytest.fixture(scope="module")
def trained(recipe):
    model = recipe.build()
    for weight in model.weights:
        weight.assign(np.random.default_rng(3).uniform(0.5, 1.5, weight.shape) / 8)
    model.class_names = [f"class {i}" for i in range(10)]
    return model


@pytest.fixture(scope="module")
def entry(trained, recipe, tmp_path_factory):
    """Folder of an entry `small`, made once."""
    return zoo.save_entry(trained, "small", tmp_path_factory.mktemp("zoo"), recipe=recipe, figures={
        "test_accuracy": [0.5, 0.9], "data": "cifar10", "epochs": 1})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A zoo of its own for each test, empty at first."""
    real = content.folder
    folder = tmp_path / "zoo"
    folder.mkdir()
    monkeypatch.setattr(content, "folder", lambda kind: folder if kind == "zoo" else real(kind))
    return folder


@pytest.fixture
def saved(folder, entry):
    """The record of the zoo's entry `small`, as a path."""
    return pathlib.Path(shutil.copytree(entry, folder / "small")) / "model.json"


@pytest.fixture
def batch():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")


def answers(model, batch):
    return [keras.ops.convert_to_numpy(logits) for logits in model(batch, training=False)]


def edit(path, **changes):
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, **changes}), encoding="utf-8")


def test_every_adaptive_configuration_has_one_place_in_the_zoo():
    """Each is the variant of exactly one zoo name, and a zoo name has a function.

    Static baselines and ThumbNets go by their own names. A variant with the zoo's own name is the
    recipe's.
    """
    variants = [name for zoo_name, table in zoo.VARIANTS.items() for name in table.values()
                if name != zoo_name]

    assert sorted(variants) == sorted(
        name for name, (network, _) in models.PUBLISHED.items()
        if network not in (models.ResNet, models.DenseNet, ThumbNetCascade))
    for name, table in zoo.VARIANTS.items():
        constructor = getattr(zoo, name)
        assert constructor.__name__ == name
        assert inspect.signature(constructor).parameters["variant"].default == next(iter(table))
        assert all(value in constructor.__doc__ for value in table.values())
    assert zoo.VARIANTS["ranet_cifar10"]["c1"] == "ranet_c1_lg_cifar10"
    assert zoo.VARIANTS["ranet_cifar100"]["c3_even"] == "ranet_c3_even_cifar100"
    assert zoo.DEFAULT_MODEL in zoo.VARIANTS


def test_the_list_names_every_configuration_once(folder):
    """What a zoo name stands for is not listed again under the published name."""
    infos = zoo.list_models()

    assert len({info.name for info in infos}) == len(infos)
    of_recipes = {name: recipes.load(name).model["configuration"]
                  for name in ("ranet_imagenet", "msdnet_imagenet")}
    configurations = [info.configuration for info in infos if info.name not in of_recipes]
    assert sorted(configurations) == sorted(models.PUBLISHED)
    assert {info.name: info.configuration for info in infos}.items() >= of_recipes.items()
    assert not any(info.has_weights for info in infos)


def test_a_saved_entry_leads_the_list(folder, saved):
    """With its figures, so that a table can be made without building a network."""
    first = zoo.list_models()[0]

    assert (first.name, first.configuration) == ("small", "ranet_c1_lg_cifar10")
    assert first.has_weights
    assert first.license == "Apache-2.0"
    assert first.figures["test_accuracy"][-1] == 0.9
    assert len(first.exit_macs) == 2
    assert first.num_parameters == sum(
        int(np.prod(w.shape)) for w in zoo.load("small").trainable_weights)


@pytest.mark.parametrize("name", ["ranet_cifar10", "ranet_c1_lg_cifar10", "ranet_c1_even_cifar10"])
def test_networks_take_pictures_as_they_are(folder, name, batch):
    """Normalisation is the first node of the graph; its values are the data set's."""
    model = zoo.load(name, **TINY)
    bare = models.build(model.name if name != "ranet_cifar10" else "ranet_c1_lg_cifar10", **TINY)
    bare.set_weights(model.get_weights())
    mean, std = np.array([0.4914, 0.4824, 0.4467]), np.array([0.2471, 0.2435, 0.2616])

    expected = answers(bare, ((batch / 255 - mean) / std).astype("float32"))

    for ours, theirs in zip(answers(model, batch), expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert model.name == name


def test_functions_build_variants(folder):
    """The default is the zoo's resident; the others have their published names."""
    assert zoo.ranet_cifar10(**TINY).name == "ranet_cifar10"
    variant = zoo.ranet_cifar10(variant="c1_even", num_classes=5, **TINY)

    assert variant.name == "ranet_c1_even_cifar10"
    assert variant.configuration["num_classes"] == 5
    assert variant.configuration["normalization"] == "cifar10"
    with pytest.raises(ValueError, match="'c3_even'.*Received: 'c1_evn'.*mean 'c1_even'"):
        zoo.ranet_cifar10(variant="c1_evn")


def test_the_input_rule_is_one_that_the_predictor_understands(folder):
    """Its size is the network's; a network for any size has none."""
    rule = zoo.load("ranet_cifar10", input_shape=(40, 48, 3), **TINY).input_rule

    assert InputRule.from_dict(rule, 3).size == (40, 48)
    free = zoo.load("resnet8_cifar10", input_shape=(None, None, 3))
    assert free.input_rule is None


@pytest.mark.parametrize("name, near", [
    ("ranet_cifar", "ranet_cifar10"), ("ranet_c1_lg_cifar", "ranet_c1_lg_cifar10"),
    ("smal", "small"), ("../zoo/small", None), ("", None),
])
@pytest.mark.parametrize("pretrained", [True, False])
def test_an_unknown_name_is_an_error_that_suggests_the_nearest(folder, saved, name, near,
                                                               pretrained):
    """Names are looked up, never joined to a path."""
    message = f"Unknown model '{name}'." + (f" Did you mean '{near}'" if near else "")

    with pytest.raises(ValueError, match=message):
        zoo.load(name, pretrained=pretrained)


@pytest.mark.parametrize("name, cure", [
    ("ranet_cifar10", "`keras-adaptive train ranet_cifar10"),
    ("msdnet_cifar100", "`keras-adaptive train msdnet_lingrow_b5_cifar100_fast`"),
    ("msdnet_imagenet", "`keras-adaptive train msdnet_imagenet --data tiny_imagenet.npz`"),
])
def test_missing_weights_are_said_plainly(folder, saved, name, cure):
    """What is missing, what exists, and which command makes it."""
    with pytest.raises(zoo.NoWeightsError) as caught:
        getattr(zoo, name)(pretrained=True)

    message = str(caught.value)
    assert message.startswith(f"No weights exist yet for {name!r}")
    assert re.search("Weights exist for: 'small' .*ranet_c1_lg_cifar10", message)
    assert re.search(cure, message)


def test_an_entry_returns_the_trained_network(folder, saved, trained, batch):
    """Same answers, and the records that the predictor uses."""
    model = zoo.load("small", pretrained=True)

    expected = answers(trained, batch)
    for ours, theirs in zip(answers(model, batch), expected, strict=True):
        assert_array_equal(ours, theirs)
    assert np.ptp(expected[-1]) > 0
    assert model.name == "small"
    assert model.class_names == trained.class_names
    assert model.exit_macs == exit_macs(trained)
    assert InputRule.from_dict(model.input_rule, 3) == InputRule((32, 32), 3, "bicubic")


def test_the_published_name_finds_the_weights_too(folder, entry):
    shutil.copytree(entry, folder / "ranet_cifar10")

    model = zoo.load("ranet_c1_lg_cifar10", pretrained=True)

    assert model.name == "ranet_cifar10"
    assert model.class_names[0] == "class 0"


def test_half_precision_halves_the_file(folder, saved, trained, recipe):
    """And the record says which it is."""
    zoo.save_entry(trained, "half", recipe=recipe, dtype="float16")
    whole, half = Entry.from_file(saved), Entry.from_file(folder / "half" / "model.json")

    assert half.weights["dtype"] == "float16"
    # Names and headers of a narrow network's many small arrays take more room than its values.
    saved_bytes = 2 * sum(int(np.prod(w.shape)) for w in trained.weights)
    assert whole.weights["size_bytes"] - half.weights["size_bytes"] == pytest.approx(
        saved_bytes, rel=0.05)
    loaded = zoo.load("half", pretrained=True)
    for ours, theirs in zip(loaded.get_weights(), trained.get_weights(), strict=True):
        assert_allclose(ours, theirs, rtol=1e-3)


def test_an_entry_built_fresh_has_no_trained_weights(folder, saved, trained):
    """`pretrained=False` gives the entry's architecture, and no names of classes."""
    model = zoo.load("small")

    assert model.configuration == trained.configuration
    assert np.any(model.get_weights()[0] != trained.get_weights()[0])
    assert model.class_names is None


def test_another_picture_size_keeps_the_weights_and_forgets_the_cost(folder, saved):
    """The recorded multiply-adds hold for the trained size only."""
    model = zoo.load("small", pretrained=True, input_shape=(48, 48, 3))

    assert model.input_rule["size"] == [48, 48]
    assert model.exit_macs is None


def test_another_number_of_classes_keeps_the_trunk(folder, saved, trained):
    """Exits are fresh, the rest is what was trained; nothing pretends to know the new classes."""
    model = zoo.load("small", pretrained=True, num_classes=7)
    fresh = zoo.load("small", num_classes=7)

    assert model.output_shape == [(None, 7), (None, 7)]
    assert (model.class_names, model.exit_macs) == (None, None)
    known = {weight.path: weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight)
             for weight in trained.weights}
    for weight, other in zip(model.weights, fresh.weights, strict=True):
        value = keras.ops.convert_to_numpy(weight)
        if weight.path.startswith("exit"):
            assert value.shape == tuple(other.shape)
            if weight.path.endswith("moving_mean"):
                assert not value.any()
        else:
            assert_array_equal(value, known[weight.path])


def test_weights_of_ones_own_are_a_file(folder, saved, trained, batch):
    """The same network with other weights than the zoo's, such as a friend's."""
    weights = saved.parent / "weights.h5"

    model = zoo.ranet_cifar10(weights=weights, **TINY)

    for ours, theirs in zip(answers(model, batch), answers(trained, batch), strict=True):
        assert_array_equal(ours, theirs)
    with pytest.raises(WeightsError, match="exit1/.*shape .*, expected .*arguments"):
        zoo.ranet_cifar10(weights=weights, **{**TINY, "num_classes": 7})
    with pytest.raises(ValueError, match="`pretrained=True` takes the zoo's weights"):
        zoo.load("small", pretrained=True, weights=weights)


def test_a_network_of_other_exits_does_not_take_the_weights(folder, saved):
    """Boosted exits have weights of the same names and shapes, which say something else there."""
    with pytest.raises(WeightsError, match="boosted_exits=False. Received: True"):
        zoo.load("small", pretrained=True, boosted_exits=True)


def test_weights_are_for_pictures_normalised_as_they_learned(folder, saved):
    """Others would be classified with confidence, and wrong. `None`: they come normalised."""
    other = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(WeightsError, match="for normalization='cifar10'. Received: ..0.0, 0.0"):
        zoo.load("small", pretrained=True, normalization=other)
    assert zoo.load("small", pretrained=True, normalization=None).num_exits == 2


@pytest.mark.parametrize("figures, expected", [
    ({"data": "CIFAR-10: 45,000 training pictures"}, "cifar10"),
    ({"data": "CIFAR-10, official test part"}, "cifar10"),
    ({"data": "imagenet2012: 9 training pictures"}, "imagenet"),
    ({"data": "my-pets_v2: 9 training pictures"}, "my-pets_v2"),
    ({"data": "tiny_imagenet: 9 training pictures"}, "tiny_imagenet"),
    ({"data": "flowers: 5 training, 5 validation and 5 test pictures"}, "flowers"),
    ({}, "cifar10"),
])
def test_an_earlier_record_knows_its_data_set(folder, saved, figures, expected):
    """Without the key it is the one that was measured, whatever the configuration was made for."""
    record = json.loads(saved.read_text(encoding="utf-8"))
    del record["data_set"]
    saved.write_text(json.dumps({**record, "figures": figures}), encoding="utf-8")
    entry = Entry.from_file(saved)
    assert entry.data_set == expected
    if expected == "flowers":
        assert entry.describe() == "small: weights for 10 flowers classes"


@pytest.mark.parametrize("source, expected", [
    (None, "cifar10"), ("cifar100", "cifar100"), ("tfds:imagenet2012", "imagenet"),
    ("tfds:imagenet_resized/64x64:0.1.0", "imagenet_resized/64x64"),
    ("data/my-pets_v2.npz", "my-pets_v2"), ("photos/", "photos"),
])
def test_the_data_set_is_the_recipes_or_the_one_that_is_named(folder, trained, recipe, source,
                                                              expected):
    """Whatever the figures say in words."""
    zoo.save_entry(trained, "small", recipe=recipe, data_set=source,
                   figures={"data": "the official test part"})

    assert zoo.find_entry("small").data_set == expected


def test_the_imagenet_network_is_the_recipes(folder):
    """The same graph with weights and without; the number of classes can be another."""
    recipe = recipes.load("ranet_imagenet")

    model = zoo.ranet_imagenet()

    assert model.configuration == recipe.build().configuration
    assert model.input_rule["size"] == [recipe.image_size] * 2
    assert zoo.ranet_imagenet(num_classes=37).output_shape[0] == (None, 37)


def test_the_msdnet_beside_it_costs_as_much():
    """So that the two can be compared: within 2 %, with the first cycle of its schedule."""
    recipe, other = recipes.load("msdnet_imagenet"), recipes.load("ranet_imagenet")
    msdnet = zoo.msdnet_imagenet()

    assert msdnet.configuration["growth_rate"] == recipe.model["growth_rate"]
    assert msdnet.output_shape == [(None, 200)] * 5
    whole = zoo.find_entry("ranet_imagenet").exit_macs[-1]
    assert exit_macs(msdnet)[-1] == pytest.approx(whole, rel=0.02)
    assert exit_parameters(msdnet)[-1] <= 12e6
    assert recipe.training == dataclasses.replace(
        other.training, phases=other.training.phases[:2])


def test_what_the_imagenet_weights_are_is_said_in_one_line(folder, entry, capsys):
    """Whoever types the first line learns that it is not all of ImageNet."""
    shutil.copytree(entry, folder / "ranet_imagenet")
    edit(folder / "ranet_imagenet" / "model.json", configuration="ranet_i1_step8_imagenet",
         data_set="tiny_imagenet",
         arguments={**TINY, "stem": "cifar", "num_classes": 10, "input_shape": [32, 32, 3],
                    "growth_rate": 4, "head_filters": 128, "layer_growth": "linear"},
         figures={"test_accuracy": [0.5, 0.6012], "test_top5_accuracy": [0.7, 0.83],
                  "data": "tiny_imagenet: 9 test pictures"})

    zoo.ranet_imagenet(pretrained=True)

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "ranet_imagenet: weights for 10 of the 1000 ImageNet classes, top-1 60.1% at the last "
        "exit, top-5 83.0% at the last exit\n")


@pytest.mark.parametrize("variant", ["i1", "i2"])
def test_the_papers_imagenet_networks_have_no_weights(folder, saved, variant):
    """The message names what exists and the recipe that trains them on ImageNet."""
    with pytest.raises(zoo.NoWeightsError, match=f"ranet_{variant}_step8_imagenet.*exist for: "
                       f"'small'.*keras-adaptive train ranet_{variant}_step8_imagenet"):
        zoo.ranet_imagenet(variant, pretrained=True)
    with pytest.raises(zoo.NoWeightsError, match="copy a recipe such as .*'ranet_script_imagenet'"):
        zoo.ranet_imagenet("script", pretrained=True)
    with pytest.raises(zoo.NoWeightsError, match="train msdnet_step4_imagenet --data imagenet/`"):
        zoo.msdnet_imagenet("step4", pretrained=True)


def test_what_sets_the_existing_weights_apart_is_told(folder, entry):
    """Not that there are none for a configuration, and some for the same."""
    shutil.copytree(entry, folder / "ranet_imagenet")
    edit(folder / "ranet_imagenet" / "model.json", configuration="ranet_i1_step8_imagenet",
         arguments={"num_classes": 200, "input_shape": [64, 64, 3], "head_filters": 128})

    with pytest.raises(zoo.NoWeightsError) as caught:
        zoo.ranet_imagenet("i1", pretrained=True)

    assert ("'ranet_imagenet' (the variant 'tiny200', another network than "
            "'ranet_i1_step8_imagenet': num_classes=200 in place of 1000") in str(caught.value)


def test_names_and_input_rule_that_are_given_are_kept(folder, saved):
    """With trained weights, too; also where the exits are fresh."""
    own = [f"own {i}" for i in range(10)]
    rule = {"interpolation": "nearest", "size": [32, 32]}

    model = zoo.load("small", pretrained=True, class_names=own, input_rule=rule)

    assert model.class_names == own
    assert model.input_rule["interpolation"] == "nearest"
    assert zoo.load("ranet_cifar10", input_rule=rule, **TINY).input_rule == model.input_rule
    assert zoo.load("small", pretrained=True, num_classes=2, class_names=["a", "b"]
                    ).class_names == ["a", "b"]
    with pytest.raises(ValueError, match="one name per class: 7 .*Received 3"):
        zoo.load("small", pretrained=True, num_classes=7, class_names=["a", "b", "c"])


@pytest.mark.parametrize("arguments, message", [
    ({"variant": ["c1"]}, r"`variant` of 'ranet_cifar10' is one of .*Received: \['c1'\]"),
    ({"num_classes": "37"}, "`num_classes` must be a whole number.*Received: num_classes='37'"),
    ({"weights": 5}, "`weights` is a path or a URL .*Received: 5"),
])
def test_arguments_of_another_type_are_told(folder, arguments, message):
    """By name, not from inside of Keras."""
    with pytest.raises(ValueError, match=message):
        zoo.ranet_cifar10(**TINY, **arguments)


def test_weights_that_the_package_lacks_are_found_in_the_cache(folder, saved, tmp_path,
                                                               monkeypatch):
    """A file of the right digest in `KERAS_HOME` does; without it both places are named."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    digest = Entry.from_file(saved).weights["sha256"]
    cached = tmp_path / "home" / "keras_adaptive" / f"{digest}.h5"
    cached.parent.mkdir(parents=True)
    shutil.move(saved.parent / "weights.h5", cached)

    assert zoo.load("small", pretrained=True).class_names[0] == "class 0"
    cached.unlink()
    with pytest.raises(WeightsError, match="neither in the package, .*nor in the cache"):
        zoo.load("small", pretrained=True)


def test_damaged_weights_are_refused(folder, saved):
    """A changed byte is found before the file is parsed."""
    weights = saved.parent / "weights.h5"
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    weights.write_bytes(damaged)

    with pytest.raises(WeightsError, match="has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"):
        zoo.load("small", pretrained=True)


@pytest.mark.parametrize("weights, message", [
    ({"file": "../../weights.h5"}, "name in the same folder. Received: '../../weights.h5'"),
    ({"file": "/etc/passwd"}, "name in the same folder"),
    ({"sha256": "abc"}, "64 hexadecimal digits. Received: 'abc'"),
    ({"sha265": ""}, "unknown key 'sha265'. Did you mean 'sha256'"),
])
def test_a_record_cannot_point_elsewhere(folder, saved, weights, message):
    """Weights lie in the entry's folder, and are vouched for by a whole digest."""
    record = json.loads(saved.read_text(encoding="utf-8"))["weights"]
    edit(saved, weights={**record, **weights})

    with pytest.raises(ValueError, match=message):
        zoo.load("small", pretrained=True)


@pytest.mark.parametrize("content, message", [
    ("{", "model.json is no valid JSON"),
    ("[" * 100_000, "model.json is no valid JSON"),
    ("[]", "expected an object"),
    ('{"title": ""}', r"the keys \[.*'weights'.*\] are missing"),
])
def test_a_malformed_record_is_an_error_that_names_the_file(folder, saved, content, message):
    """Whoever edits a record by hand sees what is wrong with it."""
    saved.write_text(content)

    with pytest.raises(ValueError, match=message):
        zoo.load("small")
    with pytest.warns(UserWarning, match=f"'small' are left out: .*{message}"):
        assert not any(info.has_weights for info in zoo.list_models())


@pytest.mark.parametrize("changes, message", [
    ({"weights": {"file": 5, "sha256": "0" * 64, "size_bytes": 1, "dtype": "float16"}},
     "weights, file: expected text. Received: 5"),
    ({"weights": {"file": "w.h5", "sha256": "0" * 64, "size_bytes": "1", "dtype": "float16"}},
     "weights, size_bytes: expected a whole number"),
    ({"configuration": "ranet_c1_lg_cifar"}, "configuration: .*Did you mean 'ranet_c1_lg_cifar10'"),
    ({"configuration": ["a"]}, "configuration: expected text"),
    ({"figures": []}, "figures: expected an object"),
    ({"figures": {"data": 3}}, "figures, data: expected text"),
    ({"figures": {"test_accuracy": ["good"]}}, "test_accuracy: expected shares from 0 to 1"),
    ({"figures": {"test_accuracy": []}}, "test_accuracy: expected a list that is not empty"),
    ({"input_rule": None}, "input_rule: expected an object"),
    ({"input_rule": {"size": 32}}, "input_rule, size: expected a list"),
    ({"input_rule": {"size": [32, 32], "resize": "shorter_side_then_centre_crop",
                     "interpolation": "cubic"}}, "`input_rule.*is one of"),
    ({"exit_macs": "abc"}, "exit_macs: expected a list"),
    ({"exit_macs": [1.5]}, "exit_macs: expected a whole number"),
    ({"arguments": []}, "arguments: expected an object"),
    ({"class_names": [1]}, "class_names: expected text"),
    ({"num_parameters": True}, "num_parameters: expected a whole number"),
    ({"data_set": 1}, "data_set: expected text"),
])
def test_one_malformed_record_does_not_take_the_other_networks_away(folder, saved, entry, changes,
                                                                    message):
    """It is told by its file, wherever it is met."""
    shutil.copytree(entry, folder / "other")
    edit(saved, **changes)

    for name_it in (zoo.load, zoo.find_entry):
        with pytest.raises(ValueError, match=r"small.model\.json.*" + message):
            name_it("small")
    with pytest.warns(UserWarning, match=r"small.model\.json.*" + message):
        assert zoo.list_models()[0].name == "other" and zoo.find_entry("other").name == "other"


def test_only_the_recipes_network_is_saved_under_it(folder, trained, recipe):
    """A record that names the wrong recipe would promise what nobody can repeat."""
    other = dataclasses.replace(recipe, model={**recipe.model, "channels": 8})

    with pytest.raises(ValueError, match="not the network of .*channels .4, 8 in the recipe"):
        zoo.save_entry(trained, "small", recipe=other)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="not the network"):
        zoo.save_entry(plain, "small", recipe=recipe)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("arguments, message", [
    ({"name": "../small"}, "lower-case letters.*Received: '../small'"),
    ({"figures": {"test_accuracy": [0.5]}}, "a share per exit: 2.*Received 1"),
    ({"figures": {"loss": float("nan")}}, "`figures` holds what JSON has"),
    ({"figures": {"loss": np.float32(1)}}, "`figures` holds what JSON has"),
])
def test_a_malformed_entry_is_not_written(folder, trained, recipe, arguments, message):
    """Nothing is left behind after an error."""
    with pytest.raises(ValueError, match=message):
        zoo.save_entry(trained, **{"name": "small", "recipe": recipe, **arguments})
    assert not list(folder.iterdir())


def _store_thresholds(folder, exit_macs, **changes):
    """Write thresholds of a made-up validation part beside a record."""
    outputs = ExitOutputs([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.3, 0.7]]], [0, 1])
    digest = Entry.from_file(folder / "model.json").weights["sha256"]
    stored = CalibratedThresholds.from_outputs(outputs, exit_macs, "made up", digest)
    dataclasses.replace(stored, **changes).write(folder / "thresholds.json")


def test_calibrated_thresholds_are_had_by_what_is_wanted(folder, saved):
    """As the predictor takes them: one per exit."""
    cheap, whole = Entry.from_file(saved).exit_macs
    _store_thresholds(saved.parent, [cheap, whole])

    assert zoo.thresholds("small", macs=cheap) == (0.0, 0.0)
    assert zoo.thresholds("small", accuracy=1.0) == (0.75, 0.0)
    assert zoo.thresholds("small", max_loss=0.01) == (2.0, 0.0)


def test_a_predictor_takes_calibrated_thresholds_by_default(folder, saved, trained):
    """Those that promise least loss, of a name with all its exits; what is given counts."""
    assert EarlyExitPredictor("small", engine="keras").threshold == 0.8  # none are there
    _store_thresholds(saved.parent, Entry.from_file(saved).exit_macs)
    expected = zoo.thresholds("small", max_loss=0.005)

    assert EarlyExitPredictor("small", engine="keras").threshold == expected == (2.0, 0.0)
    for given in ({"threshold": 0.8}, {"exits": [2]}, {"max_exit": 1}, {"temperatures": [1, 2]}):
        assert EarlyExitPredictor("small", engine="keras", **given).threshold == 0.8
    assert EarlyExitPredictor(trained, engine="keras").threshold == 0.8


def test_thresholds_that_are_not_there_are_told(folder, saved):
    """Which file is missing, and the command that makes it."""
    with pytest.raises(ValueError, match="thresholds.json does not exist. `keras-adaptive card "):
        zoo.thresholds("small", macs=1e9)
    with pytest.raises(ValueError, match="Unknown model 'smal'. Did you mean 'small'"):
        zoo.thresholds("smal", macs=1e9)
    with pytest.raises(zoo.NoWeightsError, match="No weights exist yet for 'msdnet_cifar10'"):
        zoo.thresholds("msdnet_cifar10", macs=1e9)


def test_thresholds_that_cannot_be_had_are_told(folder, saved):
    _store_thresholds(saved.parent, Entry.from_file(saved).exit_macs)

    with pytest.raises(ValueError, match="cost at most 5 multiply-adds"):
        zoo.thresholds("small", macs=5)
    with pytest.raises(ValueError, match="one of `macs`, `accuracy` and `max_loss`"):
        zoo.thresholds("small")


def test_thresholds_of_other_weights_are_refused(folder, saved):
    """After another training the old thresholds would give other costs than they promise."""
    _store_thresholds(saved.parent, Entry.from_file(saved).exit_macs, weights_sha256="0" * 64)

    with pytest.raises(ValueError, match="made for other weights.*makes it anew"):
        zoo.thresholds("small", macs=1e9)


def test_an_entry_is_found_by_each_of_its_names(folder, entry):
    shutil.copytree(entry, folder / "ranet_cifar10")

    assert zoo.find_entry("ranet_c1_lg_cifar10") == zoo.find_entry("ranet_cifar10")


def test_every_record_of_the_package_tells_what_its_results_tell():
    """Its accuracies are those of the weights as they are shipped."""
    for path in sorted(content.folder("zoo").glob("*/model.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        points = [p for p in read_points(path.parent / EVALUATION) if p.exit is not None]
        for key, kind in (("test_accuracy", "accuracy"), ("test_top5_accuracy", "top5_accuracy")):
            assert record["figures"].get(key, [None] * len(points)) == [
                getattr(point, kind) for point in points], path
        assert record["data_set"] == recipes.load(record["recipe"]).data["name"]


def test_every_entry_of_the_package_is_whole():
    """Names of classes, cost and figures fit the network, and the weights are the recorded ones."""
    for info in zoo.list_models():
        if not info.has_weights:
            continue
        model = zoo.load(info.name, pretrained=True)
        assert model.exit_macs == list(info.exit_macs) == exit_macs(model)
        assert len(model.class_names) == model.outputs[0].shape[1]
        assert len(info.figures["test_accuracy"]) == model.num_exits
        assert info.num_parameters == exit_parameters(model)[-1]
        InputRule.from_dict(model.input_rule, 3)


def test_a_cascade_of_other_classes_keeps_its_trunks():
    """Both classifiers are fresh; another downscaler than the trained one is refused, because its
    weights would fit and mean something else."""
    model = zoo.load("thumbnet_cifar10", pretrained=True, num_classes=4)

    assert model.output_shape == [(None, 4), (None, 4)]
    trained = zoo.load("thumbnet_r2_resnet20_cifar10", pretrained=True)  # the same, by another name
    for part in ("student", "teacher"):
        ours, theirs = (getattr(each, part).get_weights() for each in (model, trained))
        assert all(np.array_equal(*pair) for pair in zip(ours[:-2], theirs[:-2]))
    for changed in ({"ratio": 4}, {"downscaler": "area_plus_learned"}):
        with pytest.raises(WeightsError, match="The weights of 'thumbnet_cifar10' are for"):
            zoo.load("thumbnet_cifar10", pretrained=True, **changed)
