import keras
import numpy as np
import pytest

from keras_adaptive.graph.logits import exits_give_logits, logits_of
from keras_adaptive.layers import GradientScale
from keras_adaptive.models import MultiExitModel


@pytest.fixture
def features():
    return keras.Input((4,))


def test_the_last_operation_tells(features):
    """A softmax in any form means probabilities, anything else logits."""
    logits = keras.layers.Dense(3)(features)
    nested = keras.Sequential([keras.layers.Dense(3), keras.layers.Softmax()])
    half = keras.layers.Softmax()(logits)
    outputs = {
        "dense": (logits, True),
        "dense with activation": (keras.layers.Dense(3, activation="softmax")(features), False),
        "activation": (keras.layers.Activation("softmax")(logits), False),
        "layer": (half, False),
        "operation": (keras.ops.softmax(logits), False),
        "relu": (keras.layers.ReLU()(half), True),
        "nested": (nested(features), False),
        "cast": (keras.ops.cast(half, "float32"), False),
        "linear": (keras.layers.Activation("linear", name="exit")(half), False),
        "sum": (keras.layers.Add()([half, half]), True),
        "sparsemax": (keras.layers.Dense(3, activation="sparsemax")(features), False),
        "sparsemax operation": (keras.ops.sparsemax(logits), False),
    }
    model = keras.Model(features, [output for output, _ in outputs.values()])

    found = dict(zip(outputs, exits_give_logits(model)))

    assert found == {name: is_logits for name, (_, is_logits) in outputs.items()}


@pytest.mark.parametrize("layer", [
    keras.layers.ActivityRegularization(l2=0.1), keras.layers.AlphaDropout(0.5),
    keras.layers.Dropout(0.5), keras.layers.GaussianDropout(0.5), keras.layers.GaussianNoise(0.5),
    keras.layers.SpatialDropout2D(0.5), GradientScale(0.5),
], ids=lambda layer: type(layer).__name__)
def test_layers_for_training_only_are_looked_through(features, layer):
    """In inference they pass on what is before them."""
    probabilities = keras.layers.Dense(3, activation="softmax")(features)
    outputs = [layer(keras.layers.Reshape((1, 1, x.shape[-1]))(x)) for x in (probabilities,
                                                                             features)]
    model = keras.Model(features, outputs)

    assert exits_give_logits(model) == [False, True]


def test_an_average_is_what_its_inputs_are(features):
    """Of probabilities alone it is probabilities, also where these are averages."""
    softmaxes = [keras.layers.Dense(3, activation="softmax")(features) for _ in range(3)]
    average = keras.layers.Average()(softmaxes[:2])
    mixed = keras.layers.Average()([average, keras.layers.Dense(3)(features)])
    constant = keras.layers.Average()([average, np.ones((1, 3), "float32")])
    outputs = [average, keras.layers.Average()([average, softmaxes[2]]), mixed, constant]

    assert exits_give_logits(keras.Model(features, outputs)) == [False, False, True, True]


class Temperature(keras.layers.Layer):
    """A layer of one's own, which Keras knows nothing of."""

    def call(self, x):
        return keras.ops.softmax(x / 2.0)


def test_code_of_ones_own_is_asked_what_it_gives(features):
    """Rows that add up to 1 are probabilities, whatever made them."""
    logits = keras.layers.Dense(3)(features)
    outputs = {
        "activation": (keras.layers.Dense(3, activation=lambda x: keras.ops.softmax(x))(features),
                       False),
        "other activation": (keras.layers.Dense(3, activation=lambda x: 2 * x)(features), True),
        "lambda": (keras.layers.Lambda(lambda x: keras.ops.softmax(x))(logits), False),
        "other lambda": (keras.layers.Lambda(lambda x: x - 1.0)(logits), True),
        "layer": (Temperature()(logits), False),
        "cast": (keras.ops.cast(Temperature()(logits), "float32"), False),
    }
    model = keras.Model(features, [output for output, _ in outputs.values()])

    found = dict(zip(outputs, exits_give_logits(model)))

    assert found == {name: is_logits for name, (_, is_logits) in outputs.items()}


def test_code_that_cannot_be_asked_needs_an_answer(features):
    def fail(x):
        if not isinstance(x, keras.KerasTensor):
            raise RuntimeError("out of order")
        return x

    model = keras.Model(features, keras.layers.Lambda(fail, output_shape=(4,))(features))

    with pytest.raises(ValueError, match="Exit 1 ends with 'lambda.*RuntimeError.*`from_logits`"):
        exits_give_logits(model)
    assert exits_give_logits(model, True) == [True]


def test_a_multi_exit_model_gives_logits(features):
    """It is trained on logits, whatever its last layer looks like."""
    model = MultiExitModel(features, [keras.layers.Dense(3, activation="softmax")(features)])

    assert exits_give_logits(model) == [True]


def test_the_user_knows_better(features):
    """A given value holds for all exits."""
    model = keras.Model(features, [keras.layers.Dense(3)(features)] * 2)

    assert exits_give_logits(model, False) == [False, False]
    assert exits_give_logits(model, True) == [True, True]


def test_logits_of_a_classifier_with_something_in_front(features):
    """The softmax is at the end of a model inside; its logits are read there."""
    inside = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inside(keras.layers.Rescaling(0.5)(inputs)))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")

    logits = keras.Model(inputs, logits_of(model))(x)

    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.softmax(logits)),
        keras.ops.convert_to_numpy(model(x)), atol=1e-6)
    assert np.ptp(keras.ops.convert_to_numpy(logits).sum(axis=1)) > 0.1


def test_sigmoids_are_refused_unless_the_user_insists(features):
    """The largest of several sigmoids is no confidence."""
    model = keras.Model(features, [keras.layers.Dense(3, activation="sigmoid")(features)])

    with pytest.raises(ValueError, match="Exit 1 ends with a sigmoid"):
        exits_give_logits(model)
    assert exits_give_logits(model, True) == [True]
