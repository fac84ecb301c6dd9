"""Layers that change what flows back in training and nothing else."""

import keras


@keras.saving.register_keras_serializable(package="keras_adaptive")
class GradientScale(keras.layers.Layer):
    """Identity whose gradient is multiplied by a constant.

    Args:
        scale: float. Factor of the gradient, at least 0.

    Input and output shape: any, the same.

    Raises:
        ValueError: If `scale` is negative or not finite.

    Reference:
        Gradient equilibrium of [Li et al., 2019](https://arxiv.org/abs/1908.06294), section 3.1.
    """

    def __init__(self, scale, **kwargs):
        if not 0 <= scale < float("inf"):
            raise ValueError(f"`scale` is a finite number of 0 or more. Received: {scale!r}.")
        super().__init__(**kwargs)
        self.scale = float(scale)

    def call(self, x, training=None):
        if not training:
            return x
        constant = keras.ops.stop_gradient(x)
        # The difference is exactly zero, so that the value is exactly `x`.
        return constant + self.scale * (x - constant)

    def compute_output_spec(self, x, training=None):
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def equilibrate(x, number, num_exits):
    """Balance the gradients that arrive at a feature map from its exit and from later ones.

    Without it, early features receive the gradients of all exits behind them, whose variance grows
    with the number of exits.

    Args:
        x: feature map `(batch, height, width, channels)` that exit `number` reads.
        number: int. The exit, from 1.
        num_exits: int.

    Returns:
        Tuple of what the exit's head reads and what later layers read, both equal to `x`.
    """
    for_exit = GradientScale(1 / (num_exits - number + 1), name=f"equilibrium{number}")(x)
    if number == num_exits:
        return for_exit, for_exit
    return for_exit, GradientScale(num_exits - number, name=f"equilibrium{number}_onward")(for_exit)
