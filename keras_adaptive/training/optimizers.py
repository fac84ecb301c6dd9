"""The optimizer of the papers, where Keras's differs from it."""

import keras

# Scales, shifts and biases are not pulled towards zero: parts of the variables' names.
UNDECAYED = ("gamma", "beta", "bias")


@keras.saving.register_keras_serializable(package="keras_adaptive")
class PenalizedSGD(keras.optimizers.SGD):
    """Gradient descent with momentum and an L2 penalty on every variable, as in the papers.

    The penalty is part of the gradient, so that momentum carries it, as in the authors' programs.
    Keras's `weight_decay` shrinks the variables beside the gradient step.

    Args:
        l2: float of 0 or more. Added to a variable's gradient, times the variable.
        **kwargs: as in `keras.optimizers.SGD`.

    Raises:
        ValueError: If `l2` is negative.

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 5, "Training details".
    """

    def __init__(self, *args, l2=0.0, **kwargs):
        if l2 < 0:
            raise ValueError(f"`l2` is 0 or more. Received: {l2!r}.")
        super().__init__(*args, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        gradient = keras.ops.cast(gradient, variable.dtype)
        penalty = keras.ops.cast(self.l2, variable.dtype) * variable
        super().update_step(gradient + penalty, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}
