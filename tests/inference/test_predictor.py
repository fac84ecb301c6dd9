import copy
import dataclasses
import functools
import io
import sys

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_adaptive.graph import exit_macs
from keras_adaptive.inference.engines import make_engine
from keras_adaptive.inference.engines.keras_engine import make_keras_engine
from keras_adaptive.inference.prediction import Prediction
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.models import MultiExitModel, RANet

PROPERTY = settings(deadline=None, max_examples=60, database=None, derandomize=True,
                    suppress_health_check=list(HealthCheck))


class SpyEngine:
    """The backend's engine, keeping which stage ran on how many rows."""

    def __init__(self):
        self.engine = make_keras_engine()
        self.calls = []
        self.prepare, self.reads, self.makes, self.gather = (
            self.engine.prepare, self.engine.reads, self.engine.makes, self.engine.gather)

    def run(self, index, tensors, batch_size):
        self.calls.append((index, len(tensors[0])))
        return self.engine.run(index, tensors, batch_size)

    def rows_per_stage(self, num_stages):
        return [sum(rows for index, rows in self.calls if index == stage)
                for stage in range(1, num_stages + 1)]


@pytest.fixture(scope="module")
def predictor(network):
    """One predictor for all thresholds: setting them compiles nothing."""
    return EarlyExitPredictor(network)


@pytest.fixture(scope="module")
def predictor_with(network):
    """Predictors for given exits, each compiled once."""
    return functools.cache(
        lambda exits, max_exit: EarlyExitPredictor(network, exits=exits, max_exit=max_exit))


def thresholds_for(probabilities):
    """Thresholds that matter: anywhere, and exactly where a picture's confidence lies."""
    confidences = np.unique(probabilities.max(axis=2))
    one = st.one_of(
        st.floats(0, 1.25), st.sampled_from([0.0, 1.5]),
        st.sampled_from(confidences.tolist()),
    )
    return st.one_of(one, st.lists(one, min_size=4, max_size=4))


def assert_same_answers(expected, prediction):
    """Answers agree, but for pictures that sit on a threshold; those are counted."""
    differs = expected.exits != prediction.exits
    assert not np.any(differs & ~expected.is_close), "an exit was confused"
    assert differs.sum() <= expected.is_close.sum() <= 8
    np.testing.assert_allclose(
        prediction.probabilities[~differs], expected.probabilities[~differs], atol=1e-5)
    np.testing.assert_array_equal(
        prediction.class_ids, prediction.probabilities.argmax(axis=1))
    np.testing.assert_array_equal(
        prediction.confidences, prediction.probabilities.max(axis=1))


def test_the_pictures_of_these_tests_leave_at_all_exits(all_probabilities, simulate):
    """Otherwise the tests below would mean little."""
    taken = simulate(all_probabilities, 0.7).exits

    assert (np.bincount(taken, minlength=5)[1:] >= 2).all()
    assert np.mean(all_probabilities.max(axis=2) > 0.99999) < 0.02


@PROPERTY
@given(data=st.data())
def test_skipping_work_changes_no_answer(predictor, all_probabilities, images, simulate, data):
    """For any thresholds, batch size, number and order of pictures, the result is what all exits
    give when one is chosen afterwards."""
    order = data.draw(st.permutations(range(len(images))))
    order = np.array(order[:data.draw(st.integers(1, len(images)))])
    threshold = data.draw(thresholds_for(all_probabilities))
    batch_size = data.draw(st.sampled_from([1, 2, 7, 16, 64]))
    expected = simulate(all_probabilities[:, order], threshold)

    predictor.threshold = threshold
    prediction = predictor.predict(images[order], batch_size=batch_size)

    assert_same_answers(expected, prediction)


@settings(PROPERTY, max_examples=25)
@given(data=st.data())
def test_exits_not_in_use_never_take_a_picture(
        predictor_with, all_probabilities, images, simulate, data):
    """With any selection of exits and any cap, the others' outputs play no part."""
    exits = tuple(data.draw(st.sets(st.integers(1, 4), min_size=1)))
    max_exit = data.draw(st.one_of(st.none(), st.integers(min(exits), 4)))
    threshold = data.draw(thresholds_for(all_probabilities))
    in_use = [number for number in exits if number <= (max_exit or 4)]
    expected = simulate(all_probabilities, threshold, in_use)

    predictor = predictor_with(exits, max_exit)
    predictor.threshold = threshold
    prediction = predictor.predict(images, batch_size=16)

    assert_same_answers(expected, prediction)
    assert set(prediction.exits) <= set(in_use)


def test_extreme_thresholds(predictor, all_probabilities, images):
    """At 0 everybody leaves at once, above 1 nobody before the end."""
    predictor.threshold = 0
    assert set(predictor.predict(images).exits) == {1}

    predictor.threshold = 1.01
    prediction = predictor.predict(images)
    assert set(prediction.exits) == {4}
    np.testing.assert_allclose(prediction.probabilities, all_probabilities[3], atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_later_stages_see_only_survivors(network, images, batch_size):
    """Work is really skipped: a stage receives exactly the pictures that no earlier exit took."""
    spy = SpyEngine()

    prediction = EarlyExitPredictor(network, 0.7, engine=spy).predict(images, batch_size)

    expected = [int(np.sum(prediction.exits >= stage)) for stage in (1, 2, 3, 4)]
    assert spy.rows_per_stage(4) == expected
    assert expected[3] > 0


def test_stages_without_survivors_are_not_called(network, images):
    """Nothing runs after the last picture has left."""
    spy = SpyEngine()

    EarlyExitPredictor(network, [2, 0, 0.5, 0.5], engine=spy).predict(images)

    assert [index for index, _ in spy.calls] == [1, 2]


def test_the_cost_is_what_was_run(network, images):
    """Multiply-adds add up over the exits in use; heads that are left out cost nothing."""
    costs = exit_macs(network)

    everyone = EarlyExitPredictor(network, 0.7).predict(images)
    capped = EarlyExitPredictor(network, 2, max_exit=2).predict(images)
    last_only = EarlyExitPredictor(network, 2, exits=[4]).predict(images)

    assert everyone.macs.tolist() == [costs[number - 1] for number in everyone.exits]
    assert set(capped.macs) == {costs[1]}
    assert set(last_only.macs) == set(exit_macs(keras.Model(network.inputs, network.outputs[3])))
    assert last_only.macs[0] < costs[3]
    assert everyone.full_macs == capped.full_macs == last_only.full_macs == costs[3]


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_weights_that_change_later_count(make_network, images, whole, simulate, engine):
    """Training or loading weights after the predictor was made takes effect at once."""
    network, other = make_network(seed=1), make_network(seed=3)
    predictor = EarlyExitPredictor(network, 0.7, engine=engine)
    predictor.predict(images)

    network.set_weights(other.get_weights())
    prediction = predictor.predict(images)

    expected = simulate(whole(other, images, (True, False, True, True)), 0.7)
    assert_same_answers(expected, prediction)


@pytest.mark.parametrize("is_frozen, loss_weights", [(True, [1, 1]), (False, [1, 0])])
def test_training_of_a_part_counts_too(images, is_frozen, loss_weights):
    """An engine that works on a copy of the weights takes the new ones, whatever was trained."""
    pytest.importorskip("onnxruntime")
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    exit1, exit2 = keras.layers.Dense(2), keras.layers.Dense(2)
    model = keras.Model(inputs, [exit1(x), exit2(keras.layers.ReLU()(x))])
    predictor = EarlyExitPredictor(model, 0, engine="onnxruntime")
    before = predictor.predict(images)

    exit2.trainable = not is_frozen
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss=[loss, loss], loss_weights=loss_weights)
    labels = np.arange(len(images)) % 2
    model.fit(images, [labels, labels], batch_size=len(images), verbose=0)

    expected = EarlyExitPredictor(model, 0, engine="keras").predict(images)
    assert np.abs(expected.probabilities - before.probabilities).max() > 1e-3
    np.testing.assert_allclose(predictor.predict(images).probabilities, expected.probabilities,
                               atol=1e-5)


@pytest.mark.parametrize("name", ["keras", "onnxruntime", "openvino"])
def test_one_engine_serves_several_predictors(make_network, images, name):
    """Each runs its own network, also after others got theirs ready."""
    pytest.importorskip(name)
    engine, networks = make_engine(name), [make_network(seed=1), make_network(seed=3)]
    alone = [EarlyExitPredictor(network, 0, engine="keras") for network in networks]

    predictors = [EarlyExitPredictor(network, 0, engine=engine) for network in networks]
    predictors[1].use_exits([2, 3])
    alone[1].use_exits([2, 3])

    for predictor, expected in zip(predictors, alone):
        np.testing.assert_allclose(predictor.predict(images[:4]).probabilities,
                                   expected.predict(images[:4]).probabilities, atol=1e-5)


def test_the_model_is_left_as_it_was(make_network, images):
    """A predictor, also one for some exits, leaves no trace on the model."""
    network = make_network()
    before = [len(layer._inbound_nodes) for layer in network.layers]

    EarlyExitPredictor(network, exits=[1, 3]).predict(images[:3])

    assert [len(layer._inbound_nodes) for layer in network.layers] == before
    keras.Model.from_config(network.get_config())


def test_ranet_with_its_own_class_names(images, whole, simulate):
    """A network of composite layers stops early, and tells names and costs from its attributes."""
    network = RANet(scales=(1, 2), channels=4, growth_rate=4, growth_factors=(2, 1), blocks=1,
                    block_step=1, layers_per_block=2, head_filters=4, pooling="global",
                    num_classes=3, input_shape=(16, 16, 3), normalization="cifar10",
                    class_names=["cat", "dog", "frog"])
    pictures = images.repeat(2, axis=1).repeat(2, axis=2)
    num_exits = network.num_exits
    probabilities = whole(network, pictures, [True] * num_exits)
    threshold = float(np.median(probabilities[0].max(axis=1))) + 1e-4

    prediction = EarlyExitPredictor(network, threshold).predict(pictures, batch_size=16)

    assert_same_answers(simulate(probabilities, threshold), prediction)
    assert len(set(prediction.exits)) > 1
    assert set(prediction.labels) <= {"cat", "dog", "frog"}
    assert prediction.full_macs == exit_macs(network)[-1]


def test_costs_and_names_that_a_model_carries_are_used(images):
    """What a `MultiExitModel` knows about itself is not worked out again."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(inputs)
    model = MultiExitModel(inputs, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)],
                           class_names=["a", "b"], exit_macs=[11, 22])

    prediction = EarlyExitPredictor(model, 2).predict(images[:2])

    assert prediction.macs.tolist() == [22, 22]
    assert prediction.class_names == ("a", "b")


def test_mixed_precision(make_network, images, whole):
    """Tensors between stages keep their half precision, and answers stay the whole network's."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = make_network()
    finally:
        keras.config.set_dtype_policy("float32")

    prediction = EarlyExitPredictor(network, 2).predict(images[:5])

    probabilities = whole(network, images[:5], (True, False, True, True))
    np.testing.assert_allclose(prediction.probabilities, probabilities[3], atol=0.05)


def test_networks_that_take_any_size(images):
    """The cost follows the size of the pictures; one call takes one size."""
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    heads = [keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(t))
             for t in (x, keras.layers.Conv2D(4, 3, padding="same")(x))]
    predictor = EarlyExitPredictor(keras.Model(inputs, heads), 2)

    small = predictor.predict(images[:2])
    large = predictor.predict(images[:2].repeat(2, axis=1).repeat(2, axis=2))

    convolutions = 8 * 8 * 9 * (3 * 4 + 4 * 4)
    assert small.full_macs == convolutions + 2 * 8
    assert large.full_macs == 4 * convolutions + 2 * 8
    assert len(predictor.predict([])) == 0
    with pytest.raises(ValueError, match="must have one size"):
        predictor.predict([images[0], images[0, :4]])


@pytest.mark.parametrize("empty", [[], np.zeros((0, 8, 8, 3), "uint8"), np.array([]), iter(())])
def test_no_pictures_give_an_empty_prediction(predictor, empty):
    """Nothing in, nothing out, no error."""
    prediction = predictor.predict(empty)

    assert len(prediction) == 0
    assert prediction.probabilities.shape == (0, 5)


def test_one_picture_is_a_batch_of_one(predictor, images):
    """A picture without the batch axis gives one answer, the same as in company."""
    predictor.threshold = 0.7

    alone, together = predictor.predict(images[4]), predictor.predict(images)

    assert len(alone) == 1
    assert alone.exits[0] == together.exits[4]
    np.testing.assert_allclose(alone.probabilities[0], together.probabilities[4], atol=1e-5)


def test_predictions_have_one_form(predictor, images):
    """One batch or several, they are what `Prediction` makes of lists, and nobody else's arrays."""
    predictor.threshold = 0.7
    for prediction in (predictor.predict(images[:1]), predictor.predict(images, batch_size=7)):
        fields = {field.name: getattr(prediction, field.name)
                  for field in dataclasses.fields(prediction)}
        checked = Prediction(**{
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in fields.items()})
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(checked, name), strict=True)
                assert value.flags.owndata and value.flags.writeable
            else:
                assert value == getattr(checked, name) and type(value) is type(
                    getattr(checked, name))


def test_preprocess_prepares_what_the_network_takes(network, images, all_probabilities):
    """It gets pictures of 0 to 255 in batches, and may change their size."""
    seen = []

    def halve(pictures):
        seen.append(pictures.shape)
        return pictures[:, ::2, ::2]

    large = images.repeat(2, axis=1).repeat(2, axis=2)
    predictor = EarlyExitPredictor(network, 2, preprocess=halve)
    prediction = predictor.predict(list(large), batch_size=16)

    np.testing.assert_allclose(prediction.probabilities, all_probabilities[3], atol=1e-5)
    assert seen[0] == (16, 16, 16, 3)
    with pytest.raises(ValueError, match="`preprocess` must return the shape"):
        predictor.predict(images)


@pytest.mark.parametrize("batch_size", [16, 64])
def test_preprocess_may_write_into_what_it_gets(network, images, batch_size):
    """As functions of `keras.applications` do: the caller's array stays as it was."""
    def darken(pictures):
        pictures /= 2
        return pictures

    floats = images.astype("float32")
    predictor = EarlyExitPredictor(network, 2, preprocess=darken)
    first = predictor.predict(floats, batch_size)
    again = predictor.predict(floats, batch_size)

    np.testing.assert_array_equal(floats, images)
    np.testing.assert_array_equal(again.probabilities, first.probabilities)


@pytest.mark.parametrize(
    "threshold, message",
    [
        (-0.1, "0 or more"),
        (float("nan"), "not NaN"),
        ([0.5, 0.5, float("nan"), 0.5], "not NaN"),
        ([0.5, 0.5], "one number, or one per exit: 4"),
        ([[0.5] * 4], "one number, or one per exit: 4"),
        ("high", "one number, or one per exit: 4"),
        (None, "not NaN"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(predictor, threshold, message):
    """The message says what is taken, what came, and for a list how long it should be."""
    with pytest.raises(ValueError, match=message) as error:
        predictor.threshold = threshold
    assert "Received" in str(error.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"exits": []}, "from 1 to 4, at least one"),
        ({"exits": [0, 1]}, "from 1 to 4"),
        ({"exits": [5]}, "from 1 to 4"),
        ({"exits": [1.5]}, "from 1 to 4"),
        ({"exits": [1, "last"]}, "from 1 to 4"),
        ({"exits": 2}, r"`exits=\[2\]`; or `max_exit=2`"),
        ({"max_exit": 0}, "from 1 to 4"),
        ({"max_exit": True}, "from 1 to 4"),
        ({"exits": [3, 4], "max_exit": 2}, "Raise it to 3"),
        ({"engine": "onyx"}, '"auto", one of'),
        ({"from_logits": "yes"}, 'True, False or "auto"'),
        ({"class_names": ["a"]}, "one name per class: 5"),
        ({"preprocess": 3}, "`preprocess` is a function"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(network, arguments, message):
    """Mistakes are found when the predictor is made, not in the middle of the work."""
    with pytest.raises(ValueError, match=message):
        EarlyExitPredictor(network, **arguments)


class Shift(keras.layers.Layer):
    """A layer with weights that `layer_macs` has no rule for."""

    def build(self, input_shape):
        self.shift = self.add_weight(shape=input_shape[-1:], name="shift")

    def call(self, x):
        return x + self.shift


@pytest.mark.parametrize("side", [8, None])
def test_layers_without_a_rule_are_told_before_any_work(images, side):
    """Where the size is fixed, when the predictor is made; else before a stage runs."""
    inputs = keras.Input((side, side, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    shifted = Shift(name="odd")(x)
    model = keras.Model(inputs, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(shifted)])
    spy, labels = SpyEngine(), np.zeros(len(images), int)

    with pytest.raises(ValueError, match="No rule to count the multiply-adds of 'odd'"):
        predictor = EarlyExitPredictor(model, engine=spy)
        for work in (predictor.predict, predictor.predict_progressively):
            with pytest.raises(ValueError, match="No rule to count"):
                work(images)
        predictor.calibrate(images, labels, accuracy=0.5)

    assert not spy.calls


def test_models_that_cannot_stop_early_are_refused():
    """The message says what a model must look like."""
    inputs = keras.Input((4, 4, 3))
    flat = keras.layers.Flatten()(inputs)
    two, three = keras.layers.Dense(2)(flat), keras.layers.Dense(3)(flat)

    with pytest.raises(ValueError, match="same 2 or more classes"):
        EarlyExitPredictor(keras.Model(inputs, [two, three]))
    with pytest.raises(ValueError, match="list of outputs"):
        EarlyExitPredictor(keras.Model(inputs, {"a": two, "b": two}))
    with pytest.raises(ValueError, match="one input, pictures"):
        EarlyExitPredictor(keras.Model(flat, [two]))
    with pytest.raises(TypeError, match="`model` is a Keras model"):
        EarlyExitPredictor(42)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "all"])
def test_batch_sizes_are_positive_integers(predictor, images, batch_size):
    """Zero or half a picture at a time is no plan."""
    with pytest.raises(ValueError, match="`batch_size` must be an integer"):
        predictor.predict(images, batch_size=batch_size)


def test_wrong_sizes_name_the_cure(predictor, images):
    """Arrays are not resized behind the user's back."""
    with pytest.raises(ValueError, match="takes pictures of 8x8 pixels. Received 4x8") as error:
        predictor.predict(images[:, :4])
    assert "PIL.Image.fromarray" in str(error.value)


def test_outputs_that_are_no_probabilities_are_noticed(network, make_network, images):
    """Logits taken for probabilities, and weights that are not numbers, are errors."""
    with pytest.raises(ValueError, match="Pass `from_logits=True`"):
        EarlyExitPredictor(network, from_logits=False).predict(images)

    damaged = make_network()
    damaged.set_weights([np.full_like(weight, np.nan) for weight in damaged.get_weights()])
    with pytest.raises(ValueError, match="gave NaN or infinity"):
        EarlyExitPredictor(damaged).predict(images)


def test_a_progress_bar_is_shown_on_request(predictor, images, monkeypatch):
    """The bar goes to standard error; without a terminal nobody sees it unasked."""
    for verbose, is_shown in [(True, True), ("auto", False), (False, False)]:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        predictor.predict(images, batch_size=2, verbose=verbose)
        assert bool(stream.getvalue()) == is_shown

    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    predictor.predict(images, batch_size=2)
    assert "41/41" in stream.getvalue()


def test_calibration_for_a_budget_is_what_prediction_then_costs(make_network, images):
    """Thresholds are chosen on the predictor's own answers and used from then on."""
    model = make_network(0)
    labels = np.arange(len(images)) % 5
    predictor = EarlyExitPredictor(model, exits=[1, 3, 4])
    budget = 0.7 * predictor.predict(images[:1]).full_macs

    chosen = predictor.calibrate(images, labels, macs=budget)

    prediction = predictor.predict(images, batch_size=7)
    assert predictor.threshold == chosen.thresholds
    assert len(chosen.thresholds) == len(model.outputs)
    assert prediction.macs.mean() == pytest.approx(chosen.mean_macs)
    assert prediction.macs.mean() <= budget
    assert (prediction.class_ids == labels).mean() == pytest.approx(chosen.accuracy)
    assert prediction.summary().exit_shares == pytest.approx(chosen.exit_shares)
    assert chosen.exit_shares[1] == 0


def test_calibration_for_an_accuracy_reaches_it(make_network, images):
    model = make_network(0)
    predictor = EarlyExitPredictor(model, threshold=2)  # nobody leaves early
    labels = predictor.predict(images).class_ids

    chosen = predictor.calibrate(images, labels, accuracy=0.9)

    assert (predictor.predict(images).class_ids == labels).mean() >= 0.9
    assert chosen.mean_macs < predictor.predict(images).full_macs


def test_calibration_for_a_loss_is_careful_with_few_pictures(make_network, images):
    predictor = EarlyExitPredictor(make_network(0))

    chosen = predictor.calibrate(images, np.zeros(len(images), int), max_loss=0.01)

    assert chosen.exit_shares == (0, 0, 0, 1)


@pytest.mark.parametrize("wanted", [{}, {"macs": 1e6, "accuracy": 0.9},
                                    {"macs": 1e6, "latency_ms": 3}])
def test_calibration_takes_one_aim(make_network, images, wanted):
    predictor = EarlyExitPredictor(make_network(0))

    with pytest.raises(ValueError, match="one of `macs`, `accuracy`, `max_loss` and `lat"):
        predictor.calibrate(images, np.zeros(len(images), int), **wanted)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_calibration_for_milliseconds_keeps_to_them(make_network, images, batch_size):
    """Exits in use are timed now; a mean of their times is allowed, and multiply-adds stay true."""
    labels = np.arange(len(images)) % 5
    predictor = EarlyExitPredictor(make_network(0), engine="keras", exits=[1, 2, 4], max_exit=3)

    generous = predictor.calibrate(images, labels, latency_ms=1e6, batch_size=batch_size)
    tight = predictor.calibrate(images, labels, latency_ms=1e-9, batch_size=batch_size)

    assert generous.budget_met and 0 < generous.mean_ms < 1e6
    assert tight.budget_met is False
    assert tight.exit_shares == (1, 0, 0, 0)
    prediction = predictor.predict(images)
    assert prediction.macs.mean() == tight.mean_macs == prediction.macs.max()
    assert tight.mean_ms > 1e-9
    assert tight.timed_ms is None


def test_the_fastest_exits_are_used_from_then_on(make_network, images):
    """Whichever they are on this machine, they reach the accuracy, and lie within `max_exit`."""
    model = make_network(0)
    labels = EarlyExitPredictor(model, threshold=2, max_exit=3).predict(images).class_ids
    predictor = EarlyExitPredictor(model, engine="keras", max_exit=3)

    chosen = predictor.calibrate(images, labels, accuracy=0.9, exits="fastest", batch_size=8)

    prediction = predictor.predict(images)
    assert predictor.exits == chosen.exits
    assert set(prediction.exits) <= set(chosen.exits) <= {1, 2, 3}
    assert (prediction.class_ids == labels).mean() == pytest.approx(chosen.accuracy)
    assert chosen.accuracy >= 0.9
    assert prediction.summary().exit_shares == pytest.approx(chosen.exit_shares)
    assert prediction.macs.mean() == pytest.approx(chosen.mean_macs)
    assert chosen.timed_ms <= chosen.all_exits_timed_ms
    assert chosen.mean_ms > 0


def test_other_exits_give_what_a_new_predictor_gives(make_network, images):
    """Their stages are prepared; an engine of one's own is prepared anew."""
    model = make_network(0)
    for engine in ("keras", make_keras_engine()):
        predictor = EarlyExitPredictor(model, threshold=0.5, max_exit=3, engine=engine)
        predictor.predict(images)

        predictor.use_exits([2, 3, 4])

        expected = EarlyExitPredictor(model, threshold=0.5, exits=[2, 3]).predict(images)
        prediction = predictor.predict(images)
        assert predictor.exits == (2, 3)
        np.testing.assert_array_equal(prediction.exits, expected.exits)
        np.testing.assert_array_equal(prediction.macs, expected.macs)
        np.testing.assert_allclose(prediction.probabilities, expected.probabilities, atol=1e-6)
    predictor.use_exits(None)
    assert predictor.exits == (1, 2, 3)
    with pytest.raises(ValueError, match="`exits` names exits in use"):
        predictor.use_exits([5])


@pytest.mark.parametrize("wanted, message", [
    ({"exits": "fastest", "macs": 1e6}, "chooses exits by time"),
    ({"exits": "fastest", "max_loss": 0.1}, "chooses exits by time"),
    ({"exits": [1, 2], "accuracy": 0.5}, "call `use_exits`"),
    ({"latency_ms": 0}, "milliseconds above 0"),
])
def test_what_calibration_cannot_aim_at_is_refused(make_network, images, wanted, message):
    predictor = EarlyExitPredictor(make_network(0))

    with pytest.raises(ValueError, match=message):
        predictor.calibrate(images, np.zeros(len(images), int), **wanted)


def test_exits_are_not_chosen_with_an_engine_that_cannot_be_made_twice(make_network, images):
    predictor = EarlyExitPredictor(make_network(0), engine=make_keras_engine())

    with pytest.raises(ValueError, match="name its engine"):
        predictor.calibrate(images, np.zeros(len(images), int), accuracy=0.1, exits="fastest")


def test_calibration_without_pictures_is_refused(make_network, images):
    with pytest.raises(ValueError, match="no pictures"):
        EarlyExitPredictor(make_network(0)).calibrate(images[:0], [], macs=1e6)


def test_temperatures_soften_confidences_and_change_no_class(make_network, images):
    model = make_network(0)
    plain = EarlyExitPredictor(model, threshold=2).predict(images)

    soft = EarlyExitPredictor(model, threshold=2, temperatures=[1, 1, 1, 3]).predict(images)

    np.testing.assert_array_equal(soft.class_ids, plain.class_ids)
    assert (soft.confidences < plain.confidences).all()
    logits = np.log(plain.probabilities) / 3
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(soft.probabilities, expected, rtol=1e-4)


def test_temperatures_do_not_hide_outputs_that_are_no_probabilities(make_network, images):
    predictor = EarlyExitPredictor(make_network(0), from_logits=False, temperatures=[2, 2, 2, 2])

    with pytest.raises(ValueError, match="should give probabilities"):
        predictor.predict(images)


@pytest.mark.parametrize("labels", [np.zeros(40, int), np.zeros(41), np.eye(41, dtype=int)])
def test_labels_that_fit_no_picture_are_told_as_y(make_network, images, labels):
    with pytest.raises(ValueError, match="`y` takes one whole number per picture: 41"):
        EarlyExitPredictor(make_network(0)).calibrate(images, labels, macs=1e6)


def test_exits_that_were_chosen_travel_with_their_cap(make_network, images):
    """What arrives in another process has the same exits, and none beyond `max_exit`."""
    predictor = EarlyExitPredictor(make_network(0), 0.5, engine="keras", max_exit=3)
    predictor.use_exits([1, 3])

    arrived = copy.copy(predictor)

    assert arrived.exits == (1, 3)
    np.testing.assert_array_equal(arrived.predict(images).exits, predictor.predict(images).exits)
    arrived.use_exits(None)
    assert arrived.exits == (1, 2, 3)


@pytest.mark.parametrize("when", ["before the first answer", "after it"])
def test_progressive_answers_are_of_the_pictures_that_were_given(network, images, when):
    predictor = EarlyExitPredictor(network, threshold=1.1, engine="keras")
    frame = images[:8].astype("float32")
    expected = [p.probabilities for p in predictor.predict_progressively(frame.copy())]
    answers = predictor.predict_progressively(frame)
    given = []
    if when == "after it":
        given.append(next(answers).probabilities)
    frame[:] = 0
    predictor.use_exits([1])  # nor are exits taken away from what has begun
    given += [p.probabilities for p in answers]
    np.testing.assert_array_equal(given, expected)


def test_preprocess_may_return_the_same_buffer_again(images):
    """The second stage reads the pictures, which wait for it while others are prepared."""
    keras.utils.set_random_seed(0)
    pictures = keras.Input((8, 8, 3))
    scaled = keras.layers.Rescaling(1 / 64, -2)(pictures)
    network = keras.Model(pictures, [
        keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(scaled)),
        keras.layers.Dense(5)(keras.layers.Flatten()(scaled))])
    threshold = np.median(EarlyExitPredictor(network, 0).predict(images).confidences)
    buffer = np.empty((4, 8, 8, 3), "float32")

    def prepare(batch):
        part = buffer[:len(batch)]
        part[:] = batch
        return part

    plain = EarlyExitPredictor(network, threshold).predict(images)
    own = EarlyExitPredictor(network, threshold, preprocess=prepare)
    prediction = own.predict(images, batch_size=4)
    np.testing.assert_array_equal(prediction.exits, plain.exits)
    np.testing.assert_allclose(prediction.probabilities, plain.probabilities, atol=1e-6)


def test_exits_that_come_back_after_a_calibration_can_be_reached(make_network, images):
    predictor = EarlyExitPredictor(make_network(), exits=[1, 2])
    labels = predictor.predict(images).class_ids
    predictor.calibrate(images, labels, accuracy=0.9)
    in_use = predictor.predict(images).exits
    assert set(in_use) <= {1, 2}

    predictor.use_exits(None)

    exits = predictor.predict(images).exits
    np.testing.assert_array_equal(exits == 1, in_use == 1)
    assert set(exits) <= {1, 4}


def test_weights_are_looked_at_while_calls_follow_each_other_at_once(
        make_network, images, monkeypatch):
    """On a clock that stands still between calls, and goes on during them."""
    network = make_network()
    predictor = EarlyExitPredictor(network, threshold=0)
    if predictor.engine.name == "keras":
        pytest.skip("this engine reads the variables")
    now = [0.0]
    monkeypatch.setattr("keras_adaptive.inference.predictor.time.perf_counter", lambda: now[0])
    before = predictor.predict(images[:4]).probabilities
    head = next(layer for layer in network.layers if layer.output is network.outputs[0])
    head.bias.assign(head.bias + np.arange(5, dtype="float32"))
    for _ in range(10):
        now[0] += 0.01
        predictor._last_answer = now[0]
        after = predictor.predict(images[:4]).probabilities
    assert np.abs(after - before).max() > 0.01


def test_statistics_of_normalization_that_change_later_count(images):
    """They are no variables, and a compiled program would keep their values."""
    pictures = keras.Input((8, 8, 3))
    normalization = keras.layers.Normalization(axis=-1)
    x = keras.layers.GlobalAveragePooling2D()(normalization(pictures))
    network = keras.Model(pictures, [keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)])
    normalization.adapt(images)
    predictor = EarlyExitPredictor(network, threshold=0, engine="keras")
    predictor.predict(images)

    normalization.adapt(255 - images // 2)

    expected = EarlyExitPredictor(network, threshold=0, engine="keras").predict(images)
    np.testing.assert_allclose(predictor.predict(images).probabilities, expected.probabilities,
                               atol=1e-6)


@pytest.mark.parametrize("macs", [np.array([2000, 30000]), [np.int64(2000), np.int64(30000)]])
def test_costs_that_were_set_by_hand_become_plain_numbers(images, macs):
    pictures = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(pictures)
    network = keras.Model(pictures, [keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)])
    network.exit_macs = macs
    prediction = EarlyExitPredictor(network, threshold=0).predict(images[:2])
    assert prediction.macs.tolist() == [2000, 2000] and "2000" in prediction.to_json()


def test_costs_of_another_number_of_exits_are_told_before_any_work(network, images):
    other = keras.Model(network.inputs, network.outputs)
    other.exit_macs = [5]
    with pytest.raises(ValueError, match="one number per exit: 4"):
        EarlyExitPredictor(other)
