import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from keras_adaptive.models import MultiExitModel, RANet, ResNet
from keras_adaptive.models.multi_exit import loss_on_logits
from keras_adaptive.models.precision import use_precision
from keras_adaptive.training.losses import LastExitDistillation

LABELS = np.array([0, 1, 2, 3, 4, 0, 1, 2])
# For a single step, tracing takes longer than computing; JAX is slow eagerly.
EAGER = keras.backend.backend() != "jax"


def lacks_bfloat16():
    """Return whether PyTorch's convolutions have no gradient in bfloat16 on this processor.

    Without AVX-512 PyTorch falls back to code that refuses Keras's kernels ("slow_conv2d:
    grad_weight must be contiguous").
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    return not torch.cuda.is_available() and (
        torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"))


def small_model(**records):
    """Two exits on six numbers, the second two layers deep."""
    x = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(x)
    outputs = [keras.layers.Dense(5, name="exit1")(x), keras.layers.Dense(5, name="exit2")(hidden)]
    return MultiExitModel(x, outputs, name="small", **records)


@pytest.fixture
def numbers():
    return np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels]


def test_loss_is_the_weighted_sum_over_exits_of_one_label(numbers):
    """By hand: cross-entropy of each exit's logits, weighted and added."""
    model = small_model()
    model.compile("sgd", exit_weights=[0.5, 2.0])

    logs = model.evaluate(numbers, LABELS, batch_size=8, verbose=0, return_dict=True)

    per_exit = [cross_entropy(y, LABELS).mean() for y in model.predict(numbers, verbose=0)]
    assert logs["exit1_loss"] == pytest.approx(per_exit[0], rel=1e-4)
    assert logs["exit2_loss"] == pytest.approx(per_exit[1], rel=1e-4)
    assert logs["loss"] == pytest.approx(0.5 * per_exit[0] + 2.0 * per_exit[1], rel=1e-4)


@pytest.mark.parametrize("names", [["a"], list("abcdef"), []])
def test_names_are_as_many_as_classes(names):
    """A wrong list is told where it is given, not when the first picture is classified."""
    with pytest.raises(ValueError, match="one name per class: 5 for 'small', a list"):
        small_model(class_names=names)
    assert small_model(class_names=tuple("abcde")).class_names == list("abcde")


def test_without_weights_every_exit_counts_once(numbers):
    model = small_model()
    model.compile("sgd")

    logs = model.evaluate(numbers, LABELS, verbose=0, return_dict=True)

    assert logs["loss"] == pytest.approx(logs["exit1_loss"] + logs["exit2_loss"], rel=1e-5)


def test_each_exit_reports_its_own_accuracy(numbers):
    """Metric objects are copied: a shared one would show the same pooled number everywhere."""
    model = small_model()
    model.compile("sgd", metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    labels = model.predict(numbers, verbose=0)[1].argmax(axis=1)

    logs = model.evaluate(numbers, labels, verbose=0, return_dict=True)

    assert logs["exit2_accuracy"] == 1.0
    assert logs["exit1_accuracy"] < 1.0


def test_sample_weights_reach_every_exit(numbers):
    model = small_model()
    model.compile("sgd")
    only_first = np.eye(8, dtype="float32")[0] * 8

    logs = model.evaluate(numbers, LABELS, sample_weight=only_first, batch_size=8, verbose=0,
                          return_dict=True)

    expected = [cross_entropy(y, LABELS)[0] for y in model.predict(numbers, verbose=0)]
    assert logs["exit1_loss"] == pytest.approx(expected[0], rel=1e-4)
    assert logs["exit2_loss"] == pytest.approx(expected[1], rel=1e-4)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy",
                                  "SparseCategoricalCrossentropy",
                                  keras.losses.SparseCategoricalCrossentropy(from_logits=True)])
def test_cross_entropy_by_name_takes_logits(numbers, loss):
    model = small_model()
    model.compile("sgd", loss)

    logs = model.evaluate(numbers, LABELS, verbose=0, return_dict=True)

    expected = cross_entropy(model.predict(numbers, verbose=0)[0], LABELS).mean()
    assert logs["exit1_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", [
    "CategoricalCrossentropy", "categorical_focal_crossentropy", "CategoricalFocalCrossentropy",
    "bce", "BinaryCrossentropy", "binary_focal_crossentropy", "BinaryFocalCrossentropy"])
def test_every_cross_entropy_by_name_takes_logits(name):
    """Taken for probabilities, logits are cut off at 0 and 1, and nothing says so."""
    labels = np.eye(3, dtype="float32")[[0, 2]]
    logits = np.array([[3, -2, 0], [-1, 4, 2]], "float32")
    to_probabilities = keras.ops.sigmoid if name.lower().startswith("b") else keras.ops.softmax
    expected = keras.losses.get(name)(labels, to_probabilities(logits))

    loss = loss_on_logits(name)(labels, logits)

    values = [keras.ops.convert_to_numpy(value).mean() for value in (loss, expected)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_training_lowers_the_loss_of_all_exits(numbers):
    model = small_model()
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))

    history = model.fit(numbers, LABELS, batch_size=4, epochs=6, verbose=0).history

    for k in (1, 2):
        assert history[f"exit{k}_loss"][-1] < history[f"exit{k}_loss"][0]
        assert f"exit{k}_accuracy" in history


def test_every_weight_gets_a_gradient(tiny_ranet, pictures):
    """One step changes each trainable variable: no layer hangs loose."""
    before = tiny_ranet.get_weights()
    tiny_ranet.compile(keras.optimizers.SGD(0.1), run_eagerly=EAGER)

    tiny_ranet.train_on_batch(pictures, LABELS)

    unchanged = [variable.path for variable, old in zip(tiny_ranet.weights, before)
                 if np.array_equal(keras.ops.convert_to_numpy(variable), old)]
    assert unchanged == []


@pytest.mark.slow_on_jax
@pytest.mark.skipif(lacks_bfloat16(), reason="PyTorch has no bfloat16 convolutions here")
def test_mixed_precision_trains_and_gives_float32_logits(tiny_arguments, pictures):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = RANet(**tiny_arguments)
    finally:
        keras.config.set_dtype_policy(before)
    model.compile(keras.optimizers.SGD(0.05), run_eagerly=EAGER)

    logs = model.train_on_batch(pictures, LABELS, return_dict=True)

    assert np.isfinite(logs["loss"])
    assert {y.dtype for y in model.predict_on_batch(pictures)} == {np.dtype("float32")}
    kernel = model.get_layer("subnetwork2_block1").layers[0].own.conv.conv.kernel
    assert kernel.dtype == "float32"


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("kind", ["ranet", "functional"])
def test_keras_file_round_trip_keeps_class_records_and_training(
        kind, tiny_arguments, pictures, numbers, tmp_path):
    """Reloaded, the model is the same class, answers the same and goes on training."""
    records = {"class_names": list("abcde"), "input_rule": {"size": [32, 32]},
               "exit_macs": [1, 2, 3, 4]}
    if kind == "ranet":
        model, x = RANet(**tiny_arguments, **records), pictures
    else:
        model, x = small_model(**records), numbers
    weights = [1.0, *[0.5] * (model.num_exits - 1)]
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), exit_weights=weights,
                  run_eagerly=EAGER)
    model.train_on_batch(x, LABELS)

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")

    assert type(again) is type(model)
    for name, value in records.items():
        assert getattr(again, name) == value
    for ours, theirs in zip(again.predict(x, verbose=0), model.predict(x, verbose=0)):
        assert_allclose(ours, theirs, atol=1e-6)
    assert int(again.optimizer.iterations) == 1
    expected = model.train_on_batch(x, LABELS, return_dict=True)
    logs = again.train_on_batch(x, LABELS, return_dict=True)
    assert logs.keys() == expected.keys()
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-4)


@pytest.mark.slow_on_jax
def test_weights_file_round_trip(tiny_arguments, pictures, tmp_path):
    model, other = RANet(**tiny_arguments), RANet(**tiny_arguments)

    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")

    for ours, theirs in zip(other.predict(pictures, verbose=0),
                            model.predict(pictures, verbose=0)):
        assert_allclose(ours, theirs, atol=1e-6)


def test_rebuilt_from_its_config_a_network_keeps_class_and_arguments(tiny_ranet):
    again = RANet.from_config(tiny_ranet.get_config())

    assert again.get_config() == tiny_ranet.get_config()
    assert [v.path for v in again.weights] == [v.path for v in tiny_ranet.weights]


def test_a_keras_file_keeps_the_precision(tiny_arguments, tmp_path):
    """A network built for bfloat16 computes in it again, in a process that does not."""
    with use_precision("mixed_bfloat16"):
        model = RANet(**tiny_arguments)

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")

    assert again.get_layer("stem").conv.compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_metric_objects_leave_no_log_of_their_own(numbers):
    model = small_model()
    model.compile("sgd", metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")])

    logs = model.evaluate(numbers, LABELS, verbose=0, return_dict=True)

    assert sorted(logs) == ["exit1_loss", "exit1_top2", "exit2_loss", "exit2_top2", "loss"]


def test_a_single_metric_needs_no_list(numbers):
    model = small_model()
    model.compile("sgd", metrics="accuracy")

    assert "exit2_accuracy" in model.evaluate(numbers, LABELS, verbose=0, return_dict=True)


@pytest.mark.parametrize("arguments, message", [
    ({"exit_weights": [1.0]}, "one number per exit: 2"),
    ({"exit_weights": 1.0}, "one number per exit: 2"),
    ({"exit_weights": [1.0, -1.0]}, "0 or more"),
    ({"exit_weights": [1.0, float("nan")]}, "0 or more"),
    ({"loss_weights": [1.0, 1.0]}, "with `exit_weights`"),
    ({"loss": ["mse", "mse"]}, "one loss for all exits"),
    ({"loss": "kl_divergence"}, "takes probabilities.*Use 'categorical_crossentropy'"),
    ({"metrics": {"exit1": "accuracy"}}, "`metrics` is a flat list"),
    ({"metrics": [["accuracy"], ["accuracy"]]}, "`metrics` is a flat list"),
])
def test_wrong_compile_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_model().compile("sgd", **arguments)


@pytest.mark.parametrize("arguments", [
    {"loss": "kl_divergence"}, {"optimizer": "no optimizer"},
    {"metrics": [keras.metrics.MeanMetricWrapper(lambda y, p: p[:, 0], name="first")]}])
def test_refused_compile_arguments_change_nothing(arguments):
    """A caught mistake is neither trained with nor written into a file."""
    model = small_model()
    model.compile("sgd", exit_weights=[1.0, 2.0])
    config = model.get_compile_config()

    with pytest.raises(ValueError):
        model.compile(**{"distillation": LastExitDistillation(), **arguments})

    assert model.get_compile_config() == config
    assert model._distillation is None


def test_numbers_of_numpy_travel_in_files(tmp_path):
    normalization = (np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.2, 0.1]))
    model = RANet(scales=(1, 2), growth_factors=(2, 1), channels=4, growth_rate=4, blocks=1,
                  block_step=1, layers_per_block=2, num_classes=5,
                  input_shape=(16, 16, 3), normalization=normalization,
                  input_rule={"size": np.array([16, 16])})
    model.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert loaded.input_rule == {"size": [16, 16]}
    assert loaded.get_config()["normalization"] == [[0.5, 0.4, 0.3], [0.2, 0.2, 0.1]]
    pictures = np.full((1, 16, 16, 3), 99, "uint8")
    for own, other in zip(model.predict(pictures, verbose=0), loaded.predict(pictures, verbose=0)):
        assert_allclose(own, other, rtol=1e-6)


class Unconfigured(keras.metrics.Metric):
    """Without a `get_config` of its own: another cannot be made of it."""

    def __init__(self, cut):
        super().__init__(name="unconfigured")
        self.cut = cut
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(keras.ops.cast(keras.ops.size(y_true), "float32"))

    def result(self):
        return keras.ops.convert_to_tensor(self.total)


def test_a_metric_that_cannot_be_copied_is_told(numbers):
    model = small_model()
    with pytest.raises(ValueError, match="'unconfigured' of `metrics`, a Unconfigured"):
        model.compile("sgd", metrics=[Unconfigured(0.5)])
    with pytest.raises(ValueError, match="`weighted_metrics`"):
        model.compile("sgd", metrics=[], weighted_metrics=[
            keras.metrics.MeanMetricWrapper(lambda y, p: p[:, 0], name="first")])


def test_a_single_exit_takes_the_metric_itself(numbers):
    inputs = keras.Input((6,))
    model = MultiExitModel(inputs, [keras.layers.Dense(5, name="exit1")(inputs)])
    model.compile("sgd", metrics=[Unconfigured(0.5)], run_eagerly=EAGER)
    logs = model.evaluate(numbers, LABELS, verbose=0, return_dict=True)
    assert logs["unconfigured"] == len(LABELS)


def test_quantized_networks_are_not_written_without_that():
    model = ResNet(8, 4, 5, (8, 8, 3))
    model.get_layer("exit1").quantize("int8")
    with pytest.raises(ValueError, match="is quantized .* before `quantize`"):
        model.get_config()


@pytest.mark.parametrize("given", [{}, {"jit_compile": False}, {"jit_compile": True}])
def test_a_file_keeps_how_to_compile_only_where_it_was_asked_for(given):
    """What is fast on the backend that writes a file is slow on the one that reads it."""
    model = small_model()
    model.compile("sgd", **given)

    config = model.get_compile_config()

    assert {key: config[key] for key in config if key == "jit_compile"} == given
    assert model.jit_compile is given.get("jit_compile", keras.backend.backend() == "jax")
