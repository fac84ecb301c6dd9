import pathlib

import keras
import numpy as np
import pytest

from keras_adaptive.graph import flatten
from keras_adaptive.training import Recipe
from keras_adaptive.training import recipe as recipe_module

RECIPES = sorted((pathlib.Path(__file__).resolve().parents[2] / "recipes").glob("*.toml"))
if keras.backend.backend() != "tensorflow":  # all on the default backend, two on the others
    RECIPES = [path for path in RECIPES
               if path.stem in ("ranet_cifar10", "msdnet_lingrow_b5_cifar10")]

# One recipe of each kind of network and of training, our own and the papers' with its drops and its
# penalty; the others differ from them in numbers only.
KINDS = ("ranet_cifar10", "ranet_c1_lg_cifar10", "msdnet_lingrow_b5_cifar10", "ranet_imagenet",
         "thumbnet_cifar10", "resnet20_cifar10", "densenet_bc40_k12_cifar10")

# The papers' recipes differ in numbers only: one of them is enough where a test takes longer.
TWO_SCALES = ("ranet_cifar10", "ranet_imagenet", "ranet_c1_lg_cifar10")


def changed(table, key, value):
    """Return a function that makes one mistake in a recipe's content."""
    return lambda content: {**content, table: {**content.get(table, {}), key: value}}


def test_a_recipe_builds_and_compiles_what_it_says(content):
    recipe = Recipe.from_dict("test", content)

    model = recipe.build()
    recipe.compile(model, steps=5)

    assert recipe.image_size == 32
    assert model.input_shape == (None, 32, 32, 3)
    assert recipe.build(20).input_shape == (None, 20, 20, 3)
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 5, 10, 15)]
    assert rates == pytest.approx([0.0, 0.1, 0.05, 0.0], abs=1e-6)
    assert model.optimizer.weight_decay == 1e-3


def test_scales_shifts_and_biases_are_not_decayed(content):
    recipe = Recipe.from_dict("test", content)
    model = recipe.build()
    recipe.compile(model, steps=5)
    model.optimizer.build(model.trainable_variables)

    decayed = {variable.name for variable in model.trainable_variables
               if model.optimizer._use_weight_decay(variable)}

    assert decayed == {"kernel"}


@pytest.mark.parametrize("spoil, message", [
    (changed("training", "batchsize", 3), "Did you mean 'batch_size'"),
    (changed("model", "normalisation", "cifar10"), "Did you mean 'normalization'"),
    (changed("model", "configuration", "ranet_c1_lg_cifar"), "Did you mean"),
    (changed("training", "batch_size", "8"), "`batch_size` must be of type int"),
    (changed("training", "precision", "float8"), "`precision` is one of"),
    (changed("training", "phases", [{"epochs": 1}]), "'image_size'. are missing"),
    (lambda content: {**content, "trainings": {}}, "Did you mean 'training'"),
    (lambda content: {"about": {}}, "are missing"),
    (lambda content: {**content, "model": {}}, "'configuration' is missing"),
    (lambda content: {**content, "training": "x"}, "is a table"),
    (changed("training", "phases", []), "one phase or more"),
    (changed("training", "phases", [3]), "phases is a table"),
    (changed("thumbnet", "teacher", "resnet20_cifar10"), "given with the configuration"),
    (changed("training", "batch_size", True), "`batch_size` must be of type int"),
    (changed("training", "distillation", 3), "`distillation` must be of type table"),
    (changed("training", "distillation", {"temperature": 0}), "`temperature` is above 0"),
    (changed("training", "distillation", {"temperature": "2"}), "distillation: "),
    (changed("training", "exit_weights", ["a"]), "`exit_weights` are numbers of 0 or more"),
    (changed("training", "peak_learning_rate", -1), "`peak_learning_rate` is above 0"),
    (changed("training", "label_smoothing", 1), "`label_smoothing` is 0 or more and below 1"),
    (changed("training", "crop_area", 1.5), "`crop_area` is 0 or more and at most 1"),
    (changed("training", "validate_every", 0), "`validate_every` is at least 1"),
    (changed("training", "average", 1), "`average` is 0 or more and below 1"),
    (changed("training", "exit_weights", [1, 2, 3]), "has 2. Received 3: \\[1, 2, 3\\]"),
    (lambda content: {**changed("training", "distillation", {"soft_weight": 1.0})(content),
                      "model": {"configuration": "resnet20_cifar10"}}, "has a single exit. Leave"),
    (changed("training", "drop_epochs", [True]), "numbers of epochs"),
    (changed("training", "phases", [{"epochs": 1, "image_size": 32, "restart": "yes"}]),
     "`restart` must be of type bool"),
    (changed("training", "phases", [{"epochs": 1, "image_size": 32, "random_erasing": 50}]),
     "`random_erasing` is 0 or more and at most 1"),
    (changed("training", "phases", [{"epochs": 3, "image_size": 32, "peak_learning_rate": 0.1}]),
     "for phases with `restart = true`"),
    (changed("model", "configuration", ["a"]), "`configuration` must be of type str"),
    (changed("data", "name", 3), "`name` must be of type str"),
    (changed("model", "input_shape", [32, 32, 3]), "unknown key 'input_shape'"),
    (changed("model", "layers_per_block", 2.5), "`layers_per_block` must be of type int"),
    (changed("model", "channels", "16"), "`channels` must be of type int"),
    (changed("model", "scales", 3), "`scales` must be of type list"),
    (changed("model", "reduction", True), "`reduction` must be of type float"),
    (changed("model", "scales", [1, 2.5]), r"test, \[model\]: `scales` is a list of whole numbers"),
    (changed("model", "bottleneck_factors", ["2"]), "`bottleneck_factors` is a list of whole"),
    (changed("model", "head_filters", "64"), "`head_filters` is a whole number of 1 or more. "
                                             "Received: '64'"),
    (changed("model", "head_filters", 0), "`head_filters` is a whole number of 1 or more"),
    (changed("model", "normalization", [[0.5, 0.5, 0.5], [0.2, 0, 0.2]]),
     r"test, \[model\]: The standard deviations .* above 0"),
    (changed("model", "normalization", [0.5, 0.2]), r"test, \[model\]: .* a pair \(mean, std\)"),
    (changed("model", "normalization", 3), r"test, \[model\]: .* a pair \(mean, std\)"),
    (changed("training", "phases", [{"epochs": 0, "image_size": 32}]), "at least 1"),
    (changed("training", "batch_size", 0), "at least 1"),
    (changed("training", "warmup_epochs", 4), "shortest has 3. Received: 4"),
    (changed("training", "seed", -1), "`seed` is 0 or more"),
    (changed("training", "exit_weights", [0, 0]), "not all 0"),
    (changed("training", "rand_augment", {"num_ops": "two"}), "`num_ops` is a whole number"),
    (changed("training", "rand_augment", {"factor": 5}), "`factor` a number from 0 to 1"),
    (changed("training", "distillation", {"soft_weight": float("nan")}), "all finite"),
])
def test_mistakes_are_told_with_the_nearest_name(content, spoil, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict("test", spoil(content))


def test_broken_toml_names_the_file(tmp_path):
    (tmp_path / "broken.toml").write_text("[about\n")

    with pytest.raises(ValueError, match="broken.toml is no valid TOML"):
        Recipe.from_file(tmp_path / "broken.toml")


@pytest.mark.parametrize("path", [
    pytest.param(path, marks=() if path.stem in KINDS else pytest.mark.slow) for path in RECIPES
], ids=lambda path: path.stem)
def test_every_recipe_trains(path, tiny_data):
    """The quick form of each recipe fits, and its loss is a number."""
    recipe = Recipe.from_file(path).quick(two_scales=path.stem in TWO_SCALES)
    arguments = recipe.fit_arguments(tiny_data)
    model = recipe.build()
    recipe.compile(model, arguments["steps_per_epoch"])

    history = model.fit(**arguments, verbose=0).history

    assert np.isfinite(history["loss"]).all()
    last = f"exit{model.num_exits}_" if model.num_exits > 1 else ""
    assert f"val_{last}accuracy" in history


def test_two_scales_fuse_change_scale_and_resize(content):
    """The parts that a single sub-network lacks are in the quick form that has two."""
    content["training"]["exit_weights"] = [1.0, 2.0]
    recipe = Recipe.from_dict("test", content).quick(two_scales=True)

    model = recipe.build()

    kinds = {type(call.operation).__name__ for call in flatten(model).calls}
    kinds |= {type(layer).__name__ for layer in model.layers}
    assert {"FusionBlock", "TransitionBlock", "AlignedResize"} <= kinds
    assert len(recipe.training.exit_weights) == model.num_exits == 2


def test_exit_weights_are_cut_down_with_the_network(content):
    """And are still used: the quick form compiles with those of the last exits."""
    content["model"]["blocks"] = 3
    content["training"]["exit_weights"] = [1.0, 2.0, 3.0]
    recipe = Recipe.from_dict("test", content).quick()
    model = recipe.build()

    recipe.compile(model, steps=5)

    assert model.get_compile_config()["exit_weights"] == [2.0, 3.0]


def test_the_papers_schedule_drops_to_a_tenth_at_whole_epochs(content):
    training = {"batch_size": 8, "peak_learning_rate": 0.1, "drop_epochs": [2, 3], "l2": 1e-4,
                "nesterov": False, "phases": [{"epochs": 4, "image_size": 32}]}
    recipe = Recipe.from_dict("test", {**content, "training": training})
    model = recipe.build()
    recipe.compile(model, steps=5)

    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 9, 10, 14, 15, 19)]

    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-5)
    assert (model.optimizer.l2, model.optimizer.nesterov) == (1e-4, False)


def test_a_restart_begins_another_cycle(content):
    content["training"]["phases"] += [{"epochs": 2, "image_size": 32, "restart": True}]
    recipe = Recipe.from_dict("test", content)
    model = recipe.build()
    recipe.compile(model, steps=5)

    rates = [float(model.optimizer._learning_rate(step)) for step in (5, 10, 15, 20, 25)]

    assert recipe.training.cycles == (3, 2)
    assert rates == pytest.approx([0.1, 0.05, 0.0, 0.1, 0.0], abs=1e-6)


@pytest.mark.parametrize("name", ["ranet_c3_even_cifar100", "msdnet_lingrow_b5_cifar10"])
def test_the_papers_recipes_have_the_papers_settings(name):
    training = Recipe.from_file(RECIPES[0].parent / f"{name}.toml").training

    assert (training.epochs, training.batch_size, training.peak_learning_rate) == (300, 64, 0.1)
    assert (training.l2, training.weight_decay, training.momentum) == (1e-4, 0, 0.9)
    assert (training.drop_epochs, training.nesterov) == ((150, 225), False)


@pytest.mark.parametrize("training, message", [
    ({"drop_epochs": [3, 2]}, "numbers of epochs, increasing"),
    ({"drop_epochs": ["1"]}, "numbers of epochs, increasing"),
    ({"drop_epochs": [float("inf")]}, "numbers of epochs, increasing"),
    ({"drop_epochs": [float("nan")]}, "numbers of epochs, increasing"),
    ({"drop_epochs": [0]}, "numbers of epochs, increasing"),
    ({"drop_epochs": [1], "warmup_epochs": 1}, "no `warmup_epochs`"),
    ({"drop_epochs": [3], "warmup_epochs": 0}, "within the 3 epochs"),
])
def test_schedules_that_contradict_themselves_are_refused(content, training, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict("test", {**content, "training": {**content["training"], **training}})


def test_whole_numbers_are_taken_as_what_they_mean(content):
    """Keras would compute a learning rate of 1 in whole numbers, and refuse a momentum of 0."""
    content["training"] |= {"peak_learning_rate": 1, "momentum": 0}
    recipe = Recipe.from_dict("test", content)
    model = recipe.build()

    recipe.compile(model, steps=5)

    assert float(model.optimizer.learning_rate) < 1
    assert float(recipe_schedule(model)(15)) == pytest.approx(0, abs=1e-6)


def recipe_schedule(model):
    return model.optimizer._learning_rate


def test_techniques_reach_the_training(content):
    content["training"] |= {"label_smoothing": 0.1, "exit_weights": [0.5, 1.5], "average": 0.98,
                            "distillation": {"soft_weight": 0.3, "temperature": 2.0}}
    recipe = Recipe.from_dict("test", content)
    model = recipe.build()
    recipe.compile(model, steps=5)

    config = model.get_compile_config()
    assert config["exit_weights"] == [0.5, 1.5]
    assert config["loss"]["config"]["label_smoothing"] == 0.1
    assert (model.optimizer.use_ema, model.optimizer.ema_momentum) == (True, 0.98)
    assert config["distillation"]["config"] == {
        "label_weight": 0.5, "soft_weight": 0.3, "temperature": 2.0}


def test_whole_numbers_are_rates_too(content):
    """Keras's cosine takes pi for 3 where a rate is a whole number."""
    content["training"] |= {"peak_learning_rate": 2, "phases": [
        {"epochs": 3, "image_size": 32},
        {"epochs": 3, "image_size": 32, "restart": True, "peak_learning_rate": 1}]}

    peaks = Recipe.from_dict("test", content).training.peaks

    assert peaks == (2, 1) and {type(peak) for peak in peaks} == {float}


def test_crops_and_rare_validation_reach_the_fit(content, tiny_data, monkeypatch):
    """Validated are every third epoch and the last of the phase."""
    pytest.importorskip("grain")
    content["training"] |= {"crop_area": 0.4, "validate_every": 3,
                            "phases": [{"epochs": 8, "image_size": 32}]}
    asked = []
    monkeypatch.setattr(recipe_module, "training_pipeline", lambda *args: asked.append(args))

    arguments = Recipe.from_dict("test", content).fit_arguments(
        tiny_data, first_epoch=3, random_erasing=0.3)

    assert arguments["validation_freq"] == [6, 8]
    assert asked[0][-2:] == (0.4, 0.3)


def test_an_unknown_argument_of_distillation_is_told(content):
    content["training"]["distillation"] = {"temprature": 2.0}

    with pytest.raises(ValueError, match="unknown key 'temprature'. Did you mean 'temperature'"):
        Recipe.from_dict("test", content)


@pytest.fixture
def thumbnet_content(content):
    """The tables of a recipe in which a small student learns from a small teacher."""
    model = {"configuration": "thumbnet_r2_resnet20_cifar10", "normalization": "cifar10",
             "teacher_arguments": {"depth": 8, "channels": 4}, "hidden_filters": 12}
    return {**content, "model": model, "thumbnet": {"temperature": 2.0, "moment_weight": 0.0}}


def test_the_student_of_a_cascade_learns_as_the_recipe_says(thumbnet_content):
    """What is compiled is the ThumbNet inside, with the recipe's losses."""
    recipe = Recipe.from_dict("test", thumbnet_content)

    learner = recipe.learner(recipe.build())
    recipe.compile(learner, steps=5)

    assert learner.temperature == 2
    assert learner.term_weights == {"classification": 1, "distillation": 1, "feature": 1,
                                    "moment": 0}
    assert learner.optimizer.weight_decay == 1e-3


@pytest.mark.parametrize("spoil, message", [
    (changed("thumbnet", "temprature", 3.0), "Did you mean 'temperature'"),
    (changed("thumbnet", "initial", "zeros"), "`initial` is 'teacher' or 'random'"),
    (changed("thumbnet", "temperature", 0), "temperature` is above 0 and finite. Received: 0"),
    (changed("thumbnet", "temperature", float("inf")), "temperature` is above 0 and finite"),
    (changed("thumbnet", "moment_weight", -1), "moment_weight` is 0 or more and finite"),
    (changed("thumbnet", "feature_weight", float("nan")), "feature_weight` is 0 or more"),
    (changed("thumbnet", "teacher", 3), "`teacher` must be of type str"),
    (changed("model", "teacher_arguments", 3), "`teacher_arguments` is a table"),
    (changed("model", "teacher_arguments", {"depth": "8"}),
     r"test, \[model\], teacher_arguments: `depth` must be of type int. Received: '8'"),
    (changed("model", "quantize", 8), "`quantize` is 'ste'. Received: 8"),
    (changed("training", "exit_weights", [1, 2]), "'exit_weights'. are for networks all of whose"),
    (lambda content: {key: value for key, value in content.items() if key != "thumbnet"},
     "missing for the configuration"),
])
def test_mistakes_in_the_table_of_a_student_are_named(thumbnet_content, spoil, message):
    """With the table and what is right, as everywhere in a recipe."""
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict("test", spoil(thumbnet_content))
