"""Captured steps, with a capture that runs the step itself where there is no GPU."""

import csv

import keras
import numpy as np
import pytest

from keras_adaptive.training.optimizers import PenalizedSGD

if keras.backend.backend() != "torch":
    pytest.skip("CUDA graphs are PyTorch's", allow_module_level=True)

import torch

from keras_adaptive.training import cuda_graphs
from keras_adaptive.training.cuda_graphs import (
    LOG_EVERY,
    WARM_UP_STEPS,
    CapturedStep,
    Constants,
    GraphSGD,
    can_capture,
    capture_steps,
)
from keras_adaptive.training.recipe import Recipe
from keras_adaptive.training.run import train
from keras_adaptive.training.schedules import CosineCycles

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


def repeat(step):
    """Stand in for a capture: nothing runs until the replay, which writes where a graph would."""
    kept = {}

    def replay():
        kept.update(step())

    return kept, replay


def _model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    optimizer = keras.optimizers.SGD(CosineCycles(0.5, [6, 6], 2), momentum=0.9, nesterov=True,
                                     weight_decay=1e-2)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    model.train()
    return model


def _batches(number, size=16):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(size, 4)).astype("float32"), rng.integers(0, 3, size))
            for _ in range(number)]


@pytest.mark.parametrize("settings", (
    {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1, "learning_rate": 0.2},
    {"learning_rate": CosineCycles(0.5, [3, 4], 1), "momentum": 0.5, "weight_decay": 0.1}))
def test_the_update_is_that_of_kerass_sgd(settings):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(2, 3)).astype("float32")
    lists = [[keras.Variable(value, name=name) for value, name in zip(start, ("kernel", "gamma"))]
             for _ in range(2)]
    optimizers = [keras.optimizers.SGD(**{"learning_rate": 0.1, **settings}) for _ in lists]
    for optimizer, variables in zip(optimizers, lists):
        if optimizer.weight_decay:
            optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        optimizer.build(variables)
    ours = GraphSGD(optimizers[1], lists[1])

    for gradients in rng.normal(size=(6, 2, 3)).astype("float32"):
        gradients = [torch.tensor(gradient) for gradient in gradients]
        optimizers[0].apply(gradients, lists[0])
        ours.set_learning_rate()
        with ours.in_place():
            optimizers[1].apply(gradients, lists[1])

    for one, other in zip(optimizers[0].variables + lists[0], optimizers[1].variables + lists[1]):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(other),
                                   keras.ops.convert_to_numpy(one), rtol=2e-6, err_msg=one.name)
    assert "apply" not in vars(optimizers[1])


def test_a_captured_step_learns_what_an_eager_one_learns():
    eager, captured = _model(), _model()
    captured.train_step = CapturedStep(captured, repeat)
    batches = _batches(WARM_UP_STEPS + 6)

    for x, y in batches:
        logs = eager.train_step((torch.tensor(x), torch.tensor(y)))
        captured.train_step((x, y))

    for one, other in zip(eager.weights, captured.weights):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(other),
                                   keras.ops.convert_to_numpy(one), rtol=1e-4, atol=1e-6)
    assert int(captured.optimizer.iterations) == len(batches)
    now = captured.get_metrics_result()
    assert {name: float(value) for name, value in now.items()} == pytest.approx(
        {name: float(value) for name, value in logs.items()}, rel=1e-5)


def test_it_goes_on_where_the_optimizer_stands():
    """The learning rate of step 5, as after a resumed run: of the first cycle of 6, 2 to rise."""
    model = _model()
    model.optimizer.iterations.assign(5)
    step = CapturedStep(model, repeat)

    step(_batches(1)[0])

    assert float(step.optimizer.rate) == pytest.approx(0.25 * (1 + np.cos(np.pi * 3 / 4)))


def test_every_log_names_all_metrics():
    """Keras asks the metrics for an epoch's log only if that of the last step has their names."""
    model = _model()
    step = CapturedStep(model, repeat)

    logs = [step(batch) for batch in _batches(LOG_EVERY + 2)]

    assert all(set(log) == {"loss", "accuracy"} for log in logs)
    assert len({log["loss"] for log in logs}) == 2  # read at step 1 and again after LOG_EVERY more


def test_another_batch_size_is_refused():
    step = CapturedStep(_model(), repeat)
    step(_batches(1)[0])

    with pytest.raises(ValueError, match=r"one shape, \(16, 4\). Received: \(15, 4\)"):
        step(_batches(1, size=15)[0])


def test_constants_are_made_once_per_value_and_type():
    with Constants():
        one, again, other, array = (torch.as_tensor(1.0), torch.as_tensor(1.0),
                                    torch.as_tensor(1.0, dtype=torch.float64),
                                    torch.as_tensor(np.ones(1, "float32")))
    assert one is again
    assert (other.dtype, array.shape) == (torch.float64, (1,))
    assert torch.as_tensor(1.0) is not one


class _OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


@pytest.mark.parametrize("optimizer, expected", (
    (lambda: keras.optimizers.SGD(0.1), True),
    (lambda: keras.optimizers.SGD(0.1, use_ema=True), False),
    (lambda: keras.optimizers.SGD(0.1, clipnorm=1.0), False),
    (lambda: PenalizedSGD(0.1, l2=0.1), False),
    (lambda: keras.optimizers.Adam(0.1), False)))
def test_what_can_be_captured(optimizer, expected, monkeypatch):
    model = _model()
    model.compile(optimizer(), "mse")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert can_capture(model) is expected

    own = _OwnStep(model.inputs, model.outputs)
    own.compile(optimizer(), "mse")
    assert not can_capture(own)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not can_capture(model)


def test_a_run_with_captured_steps_logs_every_epoch(content, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "can_capture", lambda model: True)
    monkeypatch.setattr(cuda_graphs, "_capture", repeat)

    train(Recipe.from_dict("test", content), tiny_data, tmp_path, verbose=0)

    with open(tmp_path / "log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(float(row["loss"]) > 0 and float(row["exit1_loss"]) > 0 for row in rows)


@needs_gpu
def test_a_cuda_graph_learns_what_eager_steps_learn():
    eager, captured = _model(), _model()
    capture_steps(captured)

    for x, y in _batches(WARM_UP_STEPS + 6):
        eager.train_step((torch.tensor(x).cuda(), torch.tensor(y).cuda()))
        captured.train_step((x, y))

    for one, other in zip(eager.trainable_weights, captured.trainable_weights):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(other),
                                   keras.ops.convert_to_numpy(one), rtol=1e-2, atol=1e-3)
