"""The losses of ThumbNet beside the classification's: functions of tensors, in float32 always.

[Zhao and Ghanem, 2020](https://arxiv.org/abs/1904.05034) describe them in words; the formulas here
are ours. No gradient flows into what comes from the teacher.
"""

from keras import ops


def moment_matching(pictures, thumbnails, second="std", epsilon=1e-8):
    """Return how far thumbnails are from their pictures in mean and spread, a scalar.

    For each picture and channel, over all pixels: the squared difference of the means, plus that of
    the second moments; then the mean over pictures and channels. An honest thumbnail has less
    contrast than its picture, so its loss is small but above 0.

    Args:
        pictures: `(batch, height, width, channels)`, values in 0..1.
        thumbnails: `(batch, rows, columns, channels)`, of any size, values in 0..1.
        second: `"std"` or `"variance"`.
        epsilon: float, added to the variance before the root, whose gradient is infinite at 0.

    Raises:
        ValueError: If `second` is neither.
    """
    if second not in ("std", "variance"):
        raise ValueError(f"`second` is 'std' or 'variance'. Received: second={second!r}.")
    mean, spread = _moments(pictures, second, epsilon)
    own_mean, own_spread = _moments(thumbnails, second, epsilon)
    return ops.mean(ops.square(mean - own_mean) + ops.square(spread - own_spread))


def _moments(pictures, second, epsilon):
    # In two steps: the mean of squares minus the square of the mean loses digits.
    pictures = ops.cast(pictures, "float32")
    mean = ops.mean(pictures, axis=(1, 2), keepdims=True)
    variance = ops.mean(ops.square(pictures - mean), axis=(1, 2))
    return mean[:, 0, 0], ops.sqrt(variance + epsilon) if second == "std" else variance


def softened_cross_entropy(teacher_logits, logits, temperature=4.0):
    """Return `temperature**2` times the cross-entropy between softened distributions, a scalar.

    Both logits are divided by the temperature before their softmax. The factor keeps the gradient's
    size as the temperature changes. The lowest value is the teacher's entropy times the factor, see
    `softened_entropy`; what is above it is the Kullback-Leibler divergence of
    `LastExitDistillation`, with the same gradient.

    Args:
        teacher_logits, logits: `(batch, classes)`.
        temperature: float above 0.

    Reference:
        [Hinton et al., 2015](https://arxiv.org/abs/1503.02531), section 2.
    """
    soft = ops.stop_gradient(_log_softmax(teacher_logits, temperature))
    own = _log_softmax(logits, temperature)
    return -temperature**2 * ops.mean(ops.sum(ops.exp(soft) * own, axis=-1))


def softened_entropy(teacher_logits, temperature=4.0):
    """Return the value of `softened_cross_entropy` for logits equal to the teacher's, a scalar."""
    scaled = ops.stop_gradient(_log_softmax(teacher_logits, temperature))
    return -temperature**2 * ops.mean(ops.sum(ops.exp(scaled) * scaled, axis=-1))


def _log_softmax(logits, temperature):
    return ops.log_softmax(ops.cast(logits, "float32") / temperature, axis=-1)


def feature_mapping(teacher_features, features, normalize=True):
    """Return the mean squared difference of feature maps, a scalar.

    Args:
        teacher_features: `(batch, height, width, channels)`.
        features: the student's decoded map, of the same shape.
        normalize: bool. Whether to divide by the mean square of the teacher's map in this batch, so
            that the weight of the loss does not depend on the network's scale.
    """
    wanted = ops.stop_gradient(ops.cast(teacher_features, "float32"))
    loss = ops.mean(ops.square(ops.cast(features, "float32") - wanted))
    if normalize:
        loss = loss / (ops.mean(ops.square(wanted)) + 1e-12)
    return loss
