"""Early exits for classifiers that have none."""

import keras
import numpy as np
import pytest

from keras_adaptive import EarlyExitPredictor, exit_macs, export_stages
from keras_adaptive.attach import attach_exits, exit_places
from keras_adaptive.models.baselines import ResNet
from keras_adaptive.training.losses import LastExitDistillation


def make_classifier(activation=None, separate=False):
    """A chain of four convolutions and a branch around the third."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    x = keras.layers.ReLU(name="a_relu")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="b")(x)
    new = keras.layers.Conv2D(8, 3, padding="same", name="c")(x)
    x = keras.layers.Add(name="sum")([x, new])
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="d")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(5, activation=None if separate else activation, name="top")(x)
    if separate:
        x = keras.layers.Softmax(name="softmax")(x)
    return keras.Model(inputs, x, name="classifier")


@pytest.fixture
def batch():
    return np.random.default_rng(0).uniform(0, 255, (6, 16, 16, 3)).astype("float32")


def test_places_are_where_one_tensor_passes():
    """By hand: inside the branch two tensors are alive; an activation follows its convolution."""
    assert exit_places(make_classifier()) == {
        "a_relu": 16 * 16 * 27 * 4,
        "b": 16 * 16 * 27 * 4 + 8 * 8 * 36 * 8,
        "sum": 16 * 16 * 27 * 4 + 8 * 8 * (36 + 72) * 8,
        "d": 16 * 16 * 27 * 4 + 8 * 8 * (36 + 72 + 72) * 8,
    }


@pytest.mark.parametrize("make", [
    make_classifier,
    lambda: make_classifier("softmax"),
    lambda: make_classifier("softmax", separate=True),
])
def test_the_last_exit_is_the_classifier_to_the_last_bit(batch, make):
    """Also through the predictor, for logits, a dense softmax and a softmax layer."""
    classifier = make()
    expected = classifier.predict(batch, verbose=0)
    if classifier.layers[-1].name == "top" and classifier.layers[-1].activation.__name__ == (
            "linear"):
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(expected))

    model = attach_exits(classifier, count=2)

    logits = model.predict(batch, verbose=0)[-1]
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.softmax(logits)), expected)
    prediction = EarlyExitPredictor(model, threshold=2).predict(batch)
    # Engines fold and round: a probability of 1e-30 agrees to a part of the largest, not its own.
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-5, atol=1e-7)
    assert model.output_names == ["exit1", "exit2", "exit3"]


def test_count_places_exits_near_even_shares(batch):
    """The whole costs 119,848: thirds lie nearest to the second and the third place."""
    classifier = make_classifier()
    model = attach_exits(classifier, count=2)

    assert model.get_layer("exit1").input is classifier.get_layer("b").output
    assert model.get_layer("exit2").input is classifier.get_layer("sum").output
    places = exit_places(classifier)
    assert places["b"] < exit_macs(model)[0] and places["sum"] < exit_macs(model)[1]


@pytest.mark.parametrize("ending", [{}, {"activation": "softmax"},
                                    {"activation": "softmax", "separate": True}])
def test_heads_learn_alone_and_leave_the_last_exit_as_it_was(batch, ending):
    classifier = make_classifier(**ending)
    model = attach_exits(classifier, at=["sum", "a_relu"])
    before = model.predict(batch, verbose=0)[-1]
    model.compile("adam", distillation=LastExitDistillation())
    head = model.get_layer("exit1").get_weights()

    model.fit(batch, np.arange(6) % 5, epochs=2, verbose=0)

    np.testing.assert_array_equal(model.predict(batch, verbose=0)[-1], before)
    assert any((a != b).any() for a, b in zip(model.get_layer("exit1").get_weights(), head))
    assert model.get_layer("exit1").input is classifier.get_layer("a_relu").output


def test_the_trunk_learns_where_it_is_asked_to(batch):
    classifier = make_classifier()
    before = classifier.get_layer("a").get_weights()[0]
    model = attach_exits(classifier, count=1, train_trunk=True)
    model.compile("adam")

    model.fit(batch, np.arange(6) % 5, verbose=0)

    assert (classifier.get_layer("a").get_weights()[0] != before).any()


def test_places_may_be_layers():
    """As `model.layers` and `model.get_layer` give them, alone or in a list."""
    classifier = make_classifier()
    b, total = classifier.get_layer("b"), classifier.get_layer("sum")

    for at in (b, [b], [total, "b"]):
        model = attach_exits(classifier, at=at, head=dense_head)
        assert model.get_layer("exit1").output is not None
        assert exit_macs(model)[0] == exit_places(classifier)["b"] + 8 * 5


def test_heads_that_cost_more_than_the_classifier_are_told(recwarn):
    """Whatever leaves early, nothing would be saved; the figures say by how much."""
    with pytest.warns(UserWarning, match="heads .* cost .* more than .* 119,848: .*narrower heads"):
        attach_exits(make_classifier(), at=["a_relu"])
    recwarn.clear()

    attach_exits(make_classifier(), at=["a_relu"], head=dense_head)

    assert not [str(w.message) for w in recwarn if "multiply-adds" in str(w.message)]


def test_a_head_of_ones_own_is_used(batch):
    model = attach_exits(make_classifier(), at=["b"], head=dense_head)

    assert isinstance(model.get_layer("exit1"), keras.layers.Dense)
    with pytest.raises(ValueError, match="`head` must give logits of shape .batch, 5."):
        attach_exits(make_classifier(), at=["b"], head=lambda x, n, name: x)


def test_a_model_with_exits_comes_back_from_its_file(batch, tmp_path):
    model = attach_exits(make_classifier(), count=3, class_names=list("vwxyz"))
    model.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    for ours, theirs in zip(loaded.predict(batch, verbose=0), model.predict(batch, verbose=0)):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.class_names == list("vwxyz")
    with pytest.raises(ValueError, match="one name per class: 5 .*Received 1"):
        attach_exits(make_classifier(), count=1, class_names=["v"])


def test_a_residual_network_of_blocks_gets_exits(batch):
    """Layers made of layers are places as a whole."""
    model = attach_exits(ResNet(depth=8, channels=4, input_shape=(16, 16, 3)), count=2)

    assert model.num_exits == 3
    # The baseline's own output is called `exit1`.
    assert model.output_names == ["attached_exit1", "exit2", "exit3"]
    assert [model.get_layer(name).input.shape[1] for name in model.output_names[:2]] == [16, 8]
    assert exit_macs(model)[0] < exit_macs(model)[1] < exit_macs(model)[2]


def test_a_model_that_was_made_by_adding_layers_is_not_computed_twice():
    """Its layers were called by earlier forms of it, too."""
    classifier = keras.Sequential([keras.Input((16, 16, 3))])
    for number in range(3):
        classifier.add(keras.layers.Conv2D(4, 3, name=f"conv{number}"))
    classifier.add(keras.layers.GlobalAveragePooling2D())
    classifier.add(keras.layers.Dense(5))

    model = attach_exits(classifier, at=["conv0"], head=dense_head)

    assert exit_macs(model)[-1] == exit_macs(classifier)[0] + 4 * 5


def dense_head(features, num_classes, name):
    x = keras.layers.GlobalAveragePooling2D()(features)
    return keras.layers.Dense(num_classes, name=name)(x)


def test_a_nested_base_is_a_place(batch):
    """The usual form of transfer learning: another model is a layer of this one."""
    inner = keras.Input((16, 16, 3))
    base = keras.Model(inner, keras.layers.Conv2D(4, 3, name="conv")(inner), name="base")
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, name="after")(base(inputs))
    classifier = keras.Model(inputs, dense_head(x, 5, "top"))
    expected = classifier.predict(batch, verbose=0)

    model = attach_exits(classifier, at=["base"])

    np.testing.assert_array_equal(model.predict(batch, verbose=0)[-1], expected)
    assert list(exit_places(classifier)) == ["conv", "after"]


@pytest.mark.parametrize("where", [{"at": ["low"]}, {"count": 1}])
def test_exits_stand_inside_a_nested_base(batch, where, tmp_path):
    """As in the classifiers of model libraries, all of whose cost lies in a backbone: the answers
    are the classifier's, its weights are shared, frozen, and come back from a file."""
    inner = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="low")(inner)
    base = keras.Model(inner, keras.layers.Conv2D(4, 3, name="high")(x), name="base")
    inputs = keras.Input((16, 16, 3))
    classifier = keras.Model(inputs, dense_head(base(inputs), 5, "top"))
    classifier.class_names = list("vwxyz")
    expected = classifier.predict(batch, verbose=0)

    model = attach_exits(classifier, **where, head=dense_head)

    np.testing.assert_array_equal(model.predict(batch, verbose=0)[-1], expected)
    assert exit_macs(model) == [14 * 14 * 9 * 3 * 4 + 4 * 5, exit_macs(classifier)[0] + 4 * 5]
    assert model.class_names == list("vwxyz")
    assert model.get_layer("low") is base.get_layer("low")
    assert not classifier.trainable_variables
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(batch, verbose=0)[-1], expected)


@pytest.mark.parametrize("wrong", [{"at": ["a"], "class_names": ["a"]}, {"at": ["pool"]}])
def test_an_error_leaves_the_classifier_as_it_was(wrong):
    """Nothing is frozen where no exits are attached."""
    classifier = make_classifier()

    with pytest.raises(ValueError):
        attach_exits(classifier, **wrong)

    assert all(layer.trainable for layer in classifier.layers)


def test_equal_names_in_nested_models_keep_them_closed(batch):
    """One model cannot hold two layers of a name; its own layers are places as before."""
    inputs = keras.Input((16, 16, 3))
    x = inputs
    for name in ("first", "second"):
        x = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Conv2D(4, 3, name="conv")],
                             name=name)(x)
    classifier = keras.Model(inputs, dense_head(x, 5, "top"))

    assert list(exit_places(classifier)) == ["first", "second"]
    assert attach_exits(classifier, count=1).num_exits == 2
    with pytest.raises(ValueError, match="no layer 'conv'"):
        attach_exits(classifier, at=["conv"])


def test_heads_do_not_read_channels_first_as_last():
    """Sizes would pass for channels, silently; a head of one's own knows better."""
    inputs = keras.Input((3, 16, 16))
    x = keras.layers.Conv2D(4, 3, data_format="channels_first", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    classifier = keras.Model(inputs, keras.layers.Dense(5)(x))

    with pytest.raises(ValueError, match="channels_first.*`head`"):
        attach_exits(classifier, at=["conv"])
    model = attach_exits(classifier, at=["conv"], head=lambda x, n, name: dense_head(
        keras.layers.Permute((2, 3, 1))(x), n, name))
    assert model.num_exits == 2


@pytest.mark.parametrize("end", [keras.ops.softmax, keras.activations.softmax])
def test_a_softmax_that_is_no_layer_is_read_before(batch, end):
    """In a nested model, too, whose calls are repeated in the new one."""
    inputs = keras.Input((16, 16, 3))
    body = make_classifier()
    classifier = keras.Model(inputs, end(body(inputs)))
    expected = classifier.predict(batch, verbose=0)

    model = attach_exits(classifier, at=["b"])

    logits = model.predict(batch, verbose=0)[-1]
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.softmax(logits)), expected)
    np.testing.assert_array_equal(logits, body.predict(batch, verbose=0))


def test_the_number_of_pictures_may_be_fixed():
    inputs = keras.Input(batch_shape=(4, 16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    classifier = keras.Model(inputs, dense_head(x, 5, "top"))

    model = attach_exits(classifier, count=np.int64(1))

    assert [tuple(output.shape) for output in model.outputs] == [(4, 5), (4, 5)]


def softmax_of_ones_own(x):
    return keras.ops.softmax(x)


@pytest.mark.parametrize("end", [
    lambda x: keras.layers.Dense(5, activation=softmax_of_ones_own)(x),
    lambda x: keras.layers.Lambda(softmax_of_ones_own)(keras.layers.Dense(5)(x)),
])
def test_probabilities_of_ones_own_code_are_not_taken_for_logits(end):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    classifier = keras.Model(inputs, end(keras.layers.GlobalAveragePooling2D()(x)))

    with pytest.raises(ValueError, match="gives probabilities.*End it with a Softmax layer"):
        attach_exits(classifier, at=["conv"])


def test_attached_exits_are_calibrated_and_exported(batch, tmp_path):
    """As those of any other network: thresholds are found, and stages give the same answers."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = attach_exits(make_classifier("softmax"), count=1)
    predictor = EarlyExitPredictor(model)

    predictor.calibrate(batch, np.arange(6) % 5, macs=exit_macs(model)[-1])
    export_stages(model, tmp_path / "stages", thresholds=predictor.threshold)

    exported = EarlyExitPredictor.from_export(tmp_path / "stages").predict(batch)
    expected = predictor.predict(batch)
    np.testing.assert_allclose(exported.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(exported.exits, expected.exits)


@pytest.mark.slow
def test_mobilenet_gets_exits():
    """A network of keras.applications, 150 layers with branches and depthwise convolutions."""
    classifier = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=7)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    expected = classifier.predict(x, verbose=0)

    model = attach_exits(classifier, count=3)

    total = exit_macs(classifier)[0]
    heads = [model.get_layer(f"exit{k}").input for k in (1, 2, 3)]
    shares = [cost / total for name, cost in exit_places(classifier).items()
              if any(classifier.get_layer(name).output is features for features in heads)]
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.1)
    logits = model.predict(x, verbose=0)[-1]
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.softmax(logits)), expected)


@pytest.mark.parametrize("call, message", [
    (lambda m: attach_exits(m), "one of `at` and `count`"),
    (lambda m: attach_exits(m, 2), "at=2. .*`attach_exits.model, count=2.`"),
    (lambda m: attach_exits(m, [2]), "list of names of layers, or of layers. Received: at=.2."),
    (lambda m: attach_exits(m, 2.5), "list of names of layers, or of layers. Received: at=2.5"),
    (lambda m: attach_exits(m, count=9), "`count` is 1 to 4"),
    (lambda m: attach_exits(m, at=["sun"]), "no layer 'sun'. Did you mean 'sum'"),
    (lambda m: attach_exits(m, at=["pool"]), "'pool' gives .None, 8."),
    (lambda m: attach_exits(m, at=["b", "b"]), "each once"),
    (lambda m: attach_exits(attach_exits(m, count=1), count=1), "one input and one output"),
    (lambda m: attach_exits(keras.Sequential(), count=1), "that is built"),
    (lambda m: attach_exits(make_classifier("sigmoid"), count=1), "sigmoid"),
])
def test_what_cannot_be_done_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_classifier())


class Scaled(keras.layers.Dense):
    """A dense layer that does something else before its softmax."""

    def call(self, inputs):
        return keras.ops.softmax(3 * keras.ops.matmul(inputs, self.kernel))


def test_a_dense_layer_of_ones_own_is_not_taken_for_keras():
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, name="low")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(inputs, Scaled(5, activation="softmax")(x))
    with pytest.raises(ValueError, match="a Scaled that gives probabilities"):
        attach_exits(model, at=["low"])


def test_class_names_may_be_an_array():
    names = np.array(list("abcde"))
    model = attach_exits(make_classifier(), at=["b"], class_names=names)
    assert model.class_names == [*"abcde"]


def test_a_frozen_last_layer_stays_frozen_with_the_trunk_that_learns():
    classifier = make_classifier("softmax")
    classifier.trainable = False
    model = attach_exits(classifier, at=["b"], train_trunk=True)
    exit1 = model.get_layer("exit1")
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in exit1.trainable_variables}


def test_an_output_in_a_dict_is_refused():
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, name="low")(inputs)
    logits = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(maps))
    with pytest.raises(ValueError, match=r"model.output\['logits'\]"):
        attach_exits(keras.Model(inputs, {"logits": logits}), at=["low"])
