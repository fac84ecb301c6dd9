"""ThumbNet: what learns, what stays, and what comes out."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from keras_adaptive import EarlyExitPredictor, ThumbNet, exit_macs
from keras_adaptive.models import ResNet, thumbnet

L = keras.layers
LABELS = np.arange(16) % 5
OFF = {"classification_weight": 0, "distillation_weight": 0, "feature_weight": 0,
       "moment_weight": 0}


def values(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3)).astype("uint8")


def make_teacher(dropout=0.0, augment=False):
    inputs = keras.Input((16, 16, 3))
    y = L.Rescaling(1 / 127.5, -1)(inputs)
    y = L.RandomFlip()(y) if augment else y
    y = L.Conv2D(4, 3, padding="same", use_bias=False, name="low")(y)
    y = L.ReLU(name="low_relu")(L.BatchNormalization(name="low_norm")(y))
    y = L.Dropout(dropout)(y) if dropout else y
    y = L.Conv2D(6, 3, strides=2, padding="same", name="high")(y)
    y = L.ReLU(name="high_relu")(L.BatchNormalization(name="high_norm")(y))
    y = L.GlobalAveragePooling2D(name="pool")(y)
    return keras.Model(inputs, L.Dense(5, name="top")(y), name="given")


def make(ratio=2, **arguments):
    return ThumbNet.from_teacher(make_teacher(), ratio, hidden_filters=6, **arguments)


def fitted(model, x, **arguments):
    model.compile(keras.optimizers.SGD(0.1))
    return model.fit(x, LABELS, batch_size=8, verbose=0, shuffle=False, **arguments)


def snapshot(part):
    return [values(variable).copy() for variable in part.variables]


def changed(part, before):
    return [not np.array_equal(values(now), then) for now, then in zip(part.variables, before)]


def test_student_starts_as_the_teacher():
    """The same weights, no variable shared, and the model that was given is left alone."""
    given = make_teacher()
    model = ThumbNet.from_teacher(given, 2, hidden_filters=6)

    for own, other in zip(model.student.get_weights(), given.get_weights(), strict=True):
        assert_array_equal(own, other)
    ids = [{id(v) for v in part.variables} for part in (given, model.teacher, model.student)]
    assert not (ids[0] & ids[1] or ids[1] & ids[2] or ids[0] & ids[2])
    assert len(given.trainable_variables) == 9
    assert not model.teacher.trainable_variables
    dense = 6 * 5
    assert exit_macs(model.student) == [(exit_macs(given)[0] - dense) // 4 + dense]


def test_random_student_starts_elsewhere():
    model = make(initial="random")

    own, other = (part.get_layer("low").get_weights()[0]
                  for part in (model.student, model.teacher))
    assert np.abs(own - other).max() > 0.01


# The variables of each part that learn from each loss: the downscaler's all, the student's below
# the tap, those above it, the decoder's.
GRADIENTS = {
    "moment": (True, False, False, False),
    "classification": (True, True, True, False),
    "distillation": (True, True, True, False),
    "feature": (True, True, False, True),
}


@pytest.mark.parametrize("term", GRADIENTS)
def test_each_loss_teaches_its_parts(term, x):
    """One step with one loss: what it reaches changes, and nothing else. Never the teacher."""
    model = make(taps=["low_relu"], **{**OFF, f"{term}_weight": 1.0})
    # The teacher's random logits say little and its features are a student's already.
    for weight in model.teacher.weights:
        weight.assign(values(weight) * 2 + 0.1)
    below = [model.student.get_layer(name) for name in ("low", "low_norm")]
    above = [model.student.get_layer(name) for name in ("high", "high_norm", "top")]
    parts = [[model.downscaler], below, above, list(model.decoders)]
    before = [[values(v).copy() for part in group for v in part.trainable_variables]
              for group in parts]
    teacher = snapshot(model.teacher)
    model.compile(keras.optimizers.SGD(1.0))

    model.fit(x, LABELS, batch_size=16, verbose=0)

    for group, then, learns in zip(parts, before, GRADIENTS[term]):
        now = [values(v) for part in group for v in part.trainable_variables]
        differs = [not np.array_equal(a, b) for a, b in zip(now, then)]
        assert any(differs) if learns else not any(differs)
    assert not any(changed(model.teacher, teacher))


def test_teacher_is_the_same_to_the_bit_after_training(x):
    """Weights, statistics and random state, with dropout and augmentation inside; and its answers,
    which a dropout at work would change."""
    model = ThumbNet.from_teacher(make_teacher(dropout=0.5, augment=True), 2, hidden_filters=6)
    before, answers = snapshot(model.teacher), values(model.teacher(x, training=False))

    fitted(model, x, epochs=2)

    assert not any(changed(model.teacher, before))
    assert_array_equal(values(model.teacher(x, training=False)), answers)


@pytest.mark.parametrize("off, calls", [
    ((), {"teacher": 1, "feature_mapping": 1, "moment_matching": 1, "softened_cross_entropy": 1}),
    (("moment",), {"teacher": 1, "feature_mapping": 1, "softened_cross_entropy": 1}),
    (("distillation",), {"teacher": 1, "feature_mapping": 1, "moment_matching": 1}),
    (("feature",), {"teacher": 1, "moment_matching": 1, "softened_cross_entropy": 1}),
    (("distillation", "feature"), {"moment_matching": 1})])
def test_weight_zero_removes_a_loss_and_its_cost(off, calls, x, monkeypatch):
    model = make(**{f"{term}_weight": 0 for term in off})
    seen = {}

    def count(name, function):
        def counted(*args, **kwargs):
            seen[name] = seen.get(name, 0) + 1
            return function(*args, **kwargs)
        return counted

    for name in ("feature_mapping", "moment_matching", "softened_cross_entropy"):
        monkeypatch.setattr(thumbnet, name, count(name, getattr(thumbnet, name)))
    monkeypatch.setattr(model.teacher_maps, "call",
                        count("teacher", model.teacher_maps.call))
    model.compile()

    model.compute_loss(x, LABELS, model(x, training=True))

    assert seen == calls
    assert {tracker.name for tracker in model.trackers} == {
        f"{term}_loss" for term in GRADIENTS if term not in off}
    if "feature" in off:
        assert not model.decoders


def test_losses_add_up_with_their_weights(x):
    """Each loss with its factor; what is logged is before it, and the divergence is above its
    floor."""
    weights = {"classification_weight": 2.0, "distillation_weight": 0.5, "feature_weight": 3.0,
               "moment_weight": 7.0}
    model = make(temperature=2.0, **weights)
    model.compile()
    outputs = model(x, training=True)
    teacher, features = model.teacher_maps(x)
    entropy = values(thumbnet.softened_entropy(teacher, 2.0))

    total = values(model.compute_loss(x, LABELS, outputs))

    logged = {tracker.name: float(values(tracker.result())) for tracker in model.trackers}
    assert all(value > 0 for value in logged.values())
    parts = [logged[name.replace("weight", "loss")] * weight for name, weight in weights.items()]
    assert total == pytest.approx(sum(parts) + 0.5 * entropy, rel=1e-5)
    assert logged["moment_loss"] == pytest.approx(values(thumbnet.moment_matching(
        x / np.float32(255), outputs["thumbnails"] / 255.0)), rel=1e-4)
    assert logged["feature_loss"] == pytest.approx(values(thumbnet.feature_mapping(
        features, outputs["features"][0])), rel=1e-4)


@pytest.mark.parametrize("feature_weight", [1.0, 0.0])
def test_kept_outputs_of_the_teacher_replace_its_run(feature_weight, x, monkeypatch):
    """The same weights after training, and the teacher has not been asked again."""
    model, other = make(feature_weight=feature_weight), make(feature_weight=feature_weight)
    other.set_weights(model.get_weights())
    labels = other.with_teacher_outputs(x, LABELS)
    assert len(labels) == (3 if feature_weight else 2)

    def refuse(*args, **kwargs):
        raise AssertionError("the teacher ran")

    monkeypatch.setattr(other.teacher_maps, "call", refuse)

    for each, y in ((model, LABELS), (other, labels)):
        each.compile(keras.optimizers.SGD(0.1))
        scores = each.fit(x, y, batch_size=8, verbose=0, shuffle=False,
                          validation_data=(x, y)).history
    assert "val_accuracy" in scores
    for own, expected in zip(other.get_weights(), model.get_weights()):
        assert_allclose(own, expected, atol=1e-4)


def test_training_logs_each_loss_and_evaluation_the_student(x):
    model = make()

    history = fitted(model, x, epochs=2, validation_data=(x, LABELS)).history

    losses = {f"{term}_loss" for term in GRADIENTS}
    assert set(history) == {"loss", "accuracy", *losses, "val_loss", "val_accuracy",
                            "val_classification_loss"}
    assert history["moment_loss"][1] < history["moment_loss"][0]
    scores = model.evaluate(x, LABELS, verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0)
    assert scores["accuracy"] == pytest.approx((logits.argmax(1) == LABELS).mean())
    assert scores["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-4)


def test_prediction_is_the_student_on_thumbnails(x):
    """In one model for export, too, which holds nothing of the teacher or the decoder."""
    model = make()
    fitted(model, x)

    logits = model.predict(x, verbose=0)

    thumbnails = values(model.downscaler(x))
    assert thumbnails.shape == (16, 8, 8, 3)
    assert 1 < thumbnails.max() and thumbnails.min() >= 0
    assert_allclose(values(model.student(thumbnails)), logits, atol=1e-5)
    whole = model.on_pictures()
    assert_allclose(values(whole(x)), logits, atol=1e-5)
    assert {id(v) for v in whole.variables} == {
        id(v) for part in (model.downscaler, model.student) for v in part.variables}
    assert exit_macs(whole) == [exit_macs(model.downscaler)[0] + exit_macs(model.student)[0]]


def test_runs_in_onnx_as_in_keras(x):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = make()
    fitted(model, x)
    whole = model.on_pictures()

    # An early-exit network of one exit.
    probabilities = EarlyExitPredictor(whole, engine="onnxruntime").predict(x).probabilities

    assert_allclose(probabilities, values(keras.ops.softmax(model.predict(x, verbose=0))),
                    atol=1e-5)


@pytest.mark.parametrize("kind", ["area", "bilinear", "bicubic", "nearest", "area_then_learned",
                                  "area_plus_learned"])
def test_other_downscalers_are_arguments(kind, x):
    """Resizing that learns nothing has no moments to match."""
    model = make(downscaler=kind)

    fitted(model, x)

    learns = kind.endswith("learned")
    assert bool(model.downscaler.trainable_variables) == learns
    assert ("moment_loss" in {t.name for t in model.trackers}) == learns
    if kind == "area":
        assert_allclose(values(model.downscaler(x)), x.reshape(16, 8, 2, 8, 2, 3).mean((2, 4)),
                        atol=1e-3)


@pytest.mark.parametrize("shape, made", [
    ((None, None, 3), "None, None, 3"), ((8, 8, 3), "8, 8, 3"), (None, "no graph")])
def test_models_that_make_no_thumbnails_of_these_pictures_are_refused(shape, made):
    """Of another size, of any size, or without a graph: the message shows what came."""
    if shape is None:
        downscaler = keras.Model()
    else:
        inputs = keras.Input(shape)
        downscaler = keras.Model(inputs, L.AveragePooling2D(2)(inputs))

    with pytest.raises(ValueError, match=f"teacher's pictures, .16, 16, 3.*{made}"):
        make(downscaler=downscaler)


def test_downscaler_serves_another_network(x, tmp_path):
    """Saved alone, loaded, frozen and put before a student of another teacher; frozen it stays,
    also in a file."""
    first = make()
    fitted(first, x)
    first.downscaler.save(tmp_path / "downscaler.keras")
    downscaler = keras.saving.load_model(tmp_path / "downscaler.keras")
    assert_array_equal(values(downscaler(x)), values(first.downscaler(x)))
    downscaler.trainable = False
    model = ThumbNet.from_teacher(ResNet(8, 4, num_classes=5, input_shape=(16, 16, 3),
                                         normalization="cifar10"), downscaler=downscaler)
    assert model.ratio == 2
    model.save(tmp_path / "thumbnet.keras")
    model = keras.saving.load_model(tmp_path / "thumbnet.keras")
    before = snapshot(downscaler)

    fitted(model, x)

    assert not any(changed(model.downscaler, before))


def test_saved_and_reloaded_goes_on_as_if_nothing_happened(x, tmp_path):
    """Answers, settings, optimizer state, and what is frozen."""
    model = make(temperature=3.0, moment_reference="area", moment_second="variance",
                 taps=["low_relu", "high_relu"])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.fit(x, LABELS, batch_size=8, verbose=0, shuffle=False)
    model.save(tmp_path / "thumbnet.keras")

    other = keras.saving.load_model(tmp_path / "thumbnet.keras")

    assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    assert {**other.get_config(), "downscaler": 0, "student": 0, "teacher": 0} == {
        **model.get_config(), "downscaler": 0, "student": 0, "teacher": 0}
    assert len(other.trainable_variables) == len(model.trainable_variables)
    teacher = snapshot(other.teacher)
    for each in (model, other):
        each.fit(x, LABELS, batch_size=8, verbose=0, shuffle=False)
    assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)
    assert not any(changed(other.teacher, teacher))


def test_weight_decay_as_a_penalty_counts_once(x):
    """What layers add to the loss is no part of the classification's."""
    teacher = make_teacher()
    teacher.get_layer("low").kernel_regularizer = keras.regularizers.L2(0.1)
    model = ThumbNet.from_teacher(teacher, 2, hidden_filters=6, **{
        **OFF, "classification_weight": 0.5})
    model.compile()
    kernel = values(model.student.get_layer("low").kernel)

    total = values(model.compute_loss(x, LABELS, model(x, training=True)))

    classification = float(values(model.trackers[0].result()))
    assert total == pytest.approx(0.5 * classification + 0.1 * (kernel**2).sum(), rel=1e-4)


def test_mixed_precision_keeps_losses_and_thumbnails_exact(x):
    model = make(precision="mixed_bfloat16")

    history = fitted(model, x).history

    assert all(np.isfinite(value).all() for value in history.values())
    outputs = model(x, training=True)
    assert {keras.backend.standardize_dtype(outputs[name].dtype)
            for name in ("logits", "thumbnails")} == {"float32"}
    loss = model.compute_loss(x, LABELS, outputs)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert model.student.get_layer("high").compute_dtype == "bfloat16"


@pytest.mark.parametrize("ratio, size, tap", [(2, 224, 14), (4, 224, 28), (2, 32, 2), (4, 64, 4)])
def test_features_are_compared_at_the_last_map_that_fits(ratio, size, tap):
    """Five halvings: 224 becomes 7 and 112 becomes 4, so that the last stage does not fit."""
    inputs = keras.Input((size, size, 3))
    y = inputs
    for stage in range(5):
        y = L.Conv2D(2, 3, strides=2, padding="same", activation="relu", name=f"stage{stage}")(y)
    model = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(y)))

    made = ThumbNet.from_teacher(model, ratio)

    (name,) = made.taps
    assert made.teacher.get_layer(name).output.shape[1] == tap
    assert made.decoders[0].ends_in_relu
    assert len(made.decoders[0].convolutions) == {2: 1, 4: 2}[ratio]


def test_decoder_ends_in_relu_where_the_map_does():
    for tap, expected in (("low_norm", False), ("low_relu", True)):
        assert make(taps=[tap]).decoders[0].ends_in_relu is expected


def test_errors_say_the_cure(x):
    given = make_teacher()
    with pytest.raises(ValueError, match="has no layer 'high_rule'.*[Dd]id you mean 'high_relu'"):
        make(taps=["high_rule"])
    with pytest.raises(ValueError, match="no layer 'pool' that .*gives a feature map"):
        make(taps=["pool"])
    with pytest.raises(ValueError, match="no layer 'pictures'"):
        make(taps=["pictures"])
    for wrong in ({"feature_weight": -1}, {"moment_weight": np.inf}, {"temperature": np.inf}):
        with pytest.raises(ValueError, match="weights of the losses are 0 or more.*all finite"):
            make(**wrong)
    with pytest.raises(ValueError, match="'image' or 'area'"):
        make(moment_reference="nearest")
    with pytest.raises(ValueError, match="'teacher' or 'random'"):
        make(initial="new")
    with pytest.raises(ValueError, match="one of .*'learned'"):
        make(downscaler="lerned")
    with pytest.raises(ValueError, match="2, 4 or 8"):
        make(ratio=3)
    with pytest.raises(ValueError, match="built"):
        ThumbNet.from_teacher(keras.Sequential([L.Dense(3)]))
    with pytest.raises(ValueError, match="one output"):
        ThumbNet.from_teacher(keras.Model(given.input, [given.output, given.output]))
    some_size = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(2, 3, padding="same"),
                                  L.GlobalMaxPooling2D(), L.Dense(2)])
    with pytest.raises(ValueError, match="Give `input_shape="):
        ThumbNet.from_teacher(some_size)
    assert ThumbNet.from_teacher(some_size, input_shape=(8, 8, 3)).student.input_shape == (
        None, 4, 4, 3)
    padded = keras.Sequential([keras.Input((10, 10, 3)),
                               L.Conv2D(2, 3, strides=2, padding="same", name="odd"),
                               L.GlobalMaxPooling2D(), L.Dense(2)])
    with pytest.raises(ValueError, match=r"2 times .* 'odd' they are \(None, 5, 5, 2\) and "):
        ThumbNet.from_teacher(padded, taps=["odd"], ratio=2)
    no_map = keras.Sequential([keras.Input((6, 6, 3)), L.Conv2D(2, 3, strides=4), L.Flatten(),
                               L.Dense(2)])
    with pytest.raises(ValueError, match="feature_weight=0"):
        ThumbNet.from_teacher(no_map)
    odd = keras.Model(given.input, L.Cropping2D(1)(given.input))
    with pytest.raises(ValueError, match="divides both sides"):
        ThumbNet.from_teacher(given, downscaler=odd)


def stripes(count, seed):
    """Return pictures of a dark or bright colour with stripes of period 2, which a mean of 2x2
    pixels takes away; the stripes' direction; and whether the colour is bright."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    wave = np.where(np.arange(16) % 2, 1.0, -1.0)
    maps = np.where(y[:, None, None], wave[None, :, None], wave[None, None, :])
    maps = maps * rng.choice([-1, 1], count)[:, None, None]
    bright = rng.integers(0, 2, count)
    colour = rng.uniform(0.35, 0.5, (count, 1, 1, 3)) + 0.15 * bright[:, None, None, None]
    pictures = colour + 0.25 * maps[..., None] + rng.normal(0, 0.02, (count, 16, 16, 3))
    return (255 * np.clip(pictures, 0, 1)).astype("float32"), y, bright


def small_classifier():
    return keras.Sequential([
        keras.Input((16, 16, 3)), L.Rescaling(1 / 127.5, -1),
        L.Conv2D(16, 3, padding="same"), L.BatchNormalization(momentum=0.9), L.ReLU(),
        L.Conv2D(16, 3, strides=2, padding="same"), L.BatchNormalization(momentum=0.9), L.ReLU(),
        L.GlobalAveragePooling2D(), L.Dense(2)])


@pytest.mark.slow
@pytest.mark.parametrize("labels, by_area", [("stripes", (0.42, 0.58)), ("colour", (0.95, 1.0))])
def test_learned_thumbnails_keep_what_averaging_loses(labels, by_area):
    """Stripes vanish from honest thumbnails, so that only a downscaler that learns can tell their
    direction. Where the class is the colour both can, and learning brings nothing."""
    scores = {}
    for kind in ("learned", "area"):
        keras.utils.set_random_seed(0)
        model = ThumbNet.from_teacher(small_classifier(), 2, kind, hidden_filters=16,
                                      initial="random", **{**OFF, "classification_weight": 1})
        data = [stripes(count, seed) for count, seed in ((2048, 0), (512, 1))]
        (x, y), (test_x, test_y) = [
            (pictures, direction if labels == "stripes" else bright)
            for pictures, direction, bright in data]
        model.compile(keras.optimizers.Adam(0.01))
        model.fit(x, y, batch_size=64, epochs=6, verbose=0)
        scores[kind] = model.evaluate(test_x, test_y, verbose=0, return_dict=True)["accuracy"]

    assert scores["learned"] >= 0.95
    assert by_area[0] <= scores["area"] <= by_area[1]


@pytest.mark.slow
def test_a_network_of_keras_applications_is_a_teacher():
    """As a model inside a model, with its own rule for pixels in front and a softmax at its end."""
    pictures = keras.Input((64, 64, 3))
    network = keras.applications.ResNet50V2(weights=None, input_shape=(64, 64, 3), classes=5)
    teacher = keras.Model(pictures, network(L.Rescaling(1 / 127.5, -1)(pictures)))
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")

    model = ThumbNet.from_teacher(teacher, 2)

    assert_allclose(values(keras.ops.softmax(model.teacher(x))), values(teacher(x)), atol=1e-5)
    assert model.student.count_params() == network.count_params()
    assert model.teacher.get_layer(model.taps[0]).output.shape[1:3] == (2, 2)


@pytest.mark.parametrize("given", [{}, {"jit_compile": False}])
def test_a_file_keeps_how_to_compile_only_where_it_was_asked_for(given):
    """What is fast on the backend that writes a file is slow on the one that reads it."""
    model = make()
    model.compile("sgd", **given)

    config = model.get_compile_config()

    assert {key: config[key] for key in config if key == "jit_compile"} == given
    assert model.jit_compile is given.get("jit_compile", keras.backend.backend() == "jax")
    again = make()
    again.compile_from_config(config)
    assert again.get_compile_config() == config


def test_a_cross_entropy_by_name_takes_logits(x):
    losses = []
    for loss in (None, "SparseCategoricalCrossentropy"):
        model = make(**OFF | {"classification_weight": 1})
        model.compile(loss=loss)
        losses.append(values(model.compute_loss(x, LABELS, {"logits": 50 * np.eye(
            16, 5, dtype="float32"), "thumbnails": x, "features": []})))

    assert losses[0] == losses[1]


@pytest.mark.parametrize("scale", [True, False])
def test_float16_scales_the_loss(scale, x, tmp_path):
    """Small gradients would vanish; a file brings the optimizer back as it was."""
    model = make(precision="mixed_float16")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), auto_scale_loss=scale)
    model.fit(x, LABELS, batch_size=8, verbose=0, shuffle=False)
    model.save(tmp_path / "thumbnet.keras")

    other = keras.saving.load_model(tmp_path / "thumbnet.keras")

    for each in (model, other):
        assert isinstance(each.optimizer, keras.optimizers.LossScaleOptimizer) is scale
    assert_array_equal([values(v) for v in other.optimizer.variables[:2]],
                       [values(v) for v in model.optimizer.variables[:2]])
    assert len(other.optimizer.variables) == len(model.optimizer.variables)
    other.fit(x, LABELS, batch_size=8, verbose=0)


def test_float32_and_scaled_optimizers_stay_as_they_are():
    model, half = make(), make(precision="mixed_float16")
    model.compile("sgd")
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    half.compile(scaled)

    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert half.optimizer is scaled


def test_parts_of_the_loss_are_means_over_pictures(x):
    """A smaller last batch counts by its pictures, as in Keras's own loss."""
    model = make()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)

    logs = model.evaluate(x[:10], LABELS[:10], batch_size=8, verbose=0, return_dict=True)

    assert logs["classification_loss"] == pytest.approx(logs["loss"], rel=1e-5)
