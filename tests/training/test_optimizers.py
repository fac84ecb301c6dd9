import keras
import numpy as np
import pytest

from keras_adaptive.training.optimizers import PenalizedSGD


def test_two_steps_by_hand():
    """w 1, gradient 0.5, penalty 0.1 w: velocity 0.6, w 0.94; then 0.9*0.6+0.5+0.094, w 0.8266."""
    variable = keras.Variable([1.0])
    optimizer = PenalizedSGD(0.1, momentum=0.9, l2=0.1)
    optimizer.build([variable])

    values = []
    for _ in range(2):
        optimizer.apply([keras.ops.convert_to_tensor(np.array([0.5], "float32"))])
        values.append(keras.ops.convert_to_numpy(variable).item())

    assert values == pytest.approx([0.94, 0.94 - 0.1 * (0.9 * 0.6 + 0.5 + 0.094)])


def test_it_equals_pytorchs():
    """The authors' programs train with this class."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=4), rng.normal(size=(5, 4))
    theirs = torch.nn.Parameter(torch.tensor(start))
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=1e-2)
    ours = keras.Variable(start, dtype="float32")
    optimizer = PenalizedSGD(0.1, momentum=0.9, l2=1e-2)
    optimizer.build([ours])

    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        sgd.step()
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))])

    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), theirs.detach().numpy(), rtol=1e-5)


def test_without_a_penalty_it_is_kerass():
    variables = [keras.Variable([1.0, -2.0]) for _ in range(2)]
    for variable, optimizer in zip(variables, (
            PenalizedSGD(0.1, momentum=0.9, nesterov=True),
            keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True))):
        optimizer.build([variable])
        for _ in range(3):
            optimizer.apply([keras.ops.convert_to_tensor(np.array([0.5, 0.1], "float32"))])

    ours, kerass = (keras.ops.convert_to_numpy(variable) for variable in variables)
    np.testing.assert_allclose(ours, kerass, rtol=1e-6)


def test_a_negative_penalty_is_refused():
    with pytest.raises(ValueError, match="`l2` is 0 or more. Received: -1"):
        PenalizedSGD(0.1, l2=-1)
