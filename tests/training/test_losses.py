import re

import keras
import numpy as np
import pytest

from keras_adaptive.models import RANet
from keras_adaptive.training.losses import LastExitDistillation, SmoothedCrossEntropy


def test_smoothed_cross_entropy_by_hand():
    """Probabilities 0.75 and 0.25, label 0, a tenth spread: -0.95 log 0.75 - 0.05 log 0.25."""
    logits = np.log([[0.75, 0.25]]).astype("float32")

    loss = SmoothedCrossEntropy(0.1)(np.array([0]), logits)

    assert float(loss) == pytest.approx(-0.95 * np.log(0.75) - 0.05 * np.log(0.25), rel=1e-5)


def test_without_smoothing_it_is_the_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 5)).astype("float32"), rng.integers(0, 5, (6, 1))

    ours = SmoothedCrossEntropy(0.0)(labels, logits)

    kerass = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    assert float(ours) == pytest.approx(float(kerass), rel=1e-5)


def test_one_hot_labels_are_told_what_they_should_be():
    """The mistake is named, not the shapes that two tensors of the formula happen to have."""
    with pytest.raises(ValueError, match=r"Received: shape \(6, 5\). One-hot labels become num"):
        SmoothedCrossEntropy(0.1)(np.eye(6, 5, dtype="float32"), np.zeros((6, 5), "float32"))


def test_distillation_equals_the_authors(parity):
    """Three exits; the teacher is another network's last exit, as in the authors' program."""
    with np.load(parity / "imta" / "distillation.npz") as given:
        logits, labels, teacher = given["outputs"], given["labels"], given["soft_logits"]
        cases = {key: float(given[key]) for key in given if key.startswith("loss_")}
    assert len(cases) == 3
    for key, expected in cases.items():
        temperature, gamma = map(float, re.findall(r"[0-9.]+", key))
        distillation = LastExitDistillation(1 - gamma, gamma / logits.shape[2], temperature)
        on_labels = [float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, z))
                     for z in logits]

        loss = np.dot(distillation.exit_weights(len(logits)), on_labels)
        loss += float(distillation(list(logits), teacher))

        assert loss == pytest.approx(expected, rel=1e-5), key


@pytest.mark.slow_on_jax
def test_a_model_adds_the_distillation_to_the_loss(tiny_arguments, pictures):
    model = RANet(**tiny_arguments)
    distillation = LastExitDistillation(0.4, 0.6, temperature=2)
    labels = np.arange(8) % 5
    model.compile()
    plain = model.evaluate(pictures, labels, verbose=0, return_dict=True)

    model.compile(distillation=distillation)
    logs = model.evaluate(pictures, labels, verbose=0, return_dict=True)

    soft = float(distillation([np.asarray(z) for z in model.predict(pictures, verbose=0)]))
    on_labels = [plain[f"exit{k}_loss"] for k in (1, 2, 3, 4)]
    assert soft > 0
    assert logs["loss"] == pytest.approx(
        0.4 * sum(on_labels[:3]) + on_labels[3] + soft, rel=1e-4)


def test_a_compiled_model_with_distillation_comes_back_from_its_file(tiny_arguments, tmp_path):
    model = RANet(**tiny_arguments)
    model.compile(loss=SmoothedCrossEntropy(0.2), distillation=LastExitDistillation(0.3, 0.7, 4))
    model.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert loaded.get_compile_config() == model.get_compile_config()


@pytest.mark.parametrize("make, message", [
    (lambda: SmoothedCrossEntropy(1.0), "below 1. Received: 1.0"),
    (lambda: LastExitDistillation(temperature=0), "`temperature` is above 0"),
])
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
