"""Functional models with several exits that all learn the same label."""

import keras
import numpy as np

from keras_adaptive.labels import check_class_names
from keras_adaptive.models.freezing import all_layers, freeze, frozen_positions
from keras_adaptive.models.precision import use_precision


@keras.saving.register_keras_serializable(package="keras_adaptive")
class MultiExitModel(keras.Model):
    """A Functional model whose outputs are the logits of its exits, trained with one label.

    `compile`, `fit`, `evaluate` and `predict` work as for a model with one output: `y` is given
    once, and loss and metrics are copied for every exit. Logs are named after the outputs, such as
    `exit1_loss` and `exit1_accuracy`.

    Args:
        inputs: `keras.KerasTensor`, the picture.
        outputs: list of `keras.KerasTensor`, the logits of exit 1, 2, …, each made by a layer that
            is named after its exit.
        class_names: sequence of strings, one per class, or `None`. Names of the classes, for
            people.
        input_rule: dict or `None`. How a photograph becomes an input: `{"size": [32, 32], …}`.
        exit_macs: sequence of ints or `None`. Multiply-adds of a picture that leaves at each exit.
        name: string.

    Raises:
        ValueError: If `class_names` are not as many as the last exit has classes.

    Reference:
        [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 4, "Loss functions".
    """

    def __init__(self, inputs, outputs, class_names=None, input_rule=None, exit_macs=None,
                 name=None, **kwargs):
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self.class_names = None if class_names is None else check_class_names(
            class_names, self.outputs[-1].shape[-1], self.name)
        self.input_rule = None if input_rule is None else plain(dict(input_rule))
        self.exit_macs = None if exit_macs is None else [int(macs) for macs in exit_macs]
        self._compile_arguments = None
        self._distillation = None

    @property
    def num_exits(self):
        """int. Number of exits."""
        return len(self.outputs)

    def compile(self, optimizer="sgd", loss=None, exit_weights=None, metrics=("accuracy",),
                distillation=None, **kwargs):
        """Configure training with one label for all exits.

        Args:
            optimizer: as in `keras.Model.compile`.
            loss: string, `keras.losses.Loss` or function of `(labels, logits)`, used at every exit.
                Defaults to sparse categorical cross-entropy on logits. The names of Keras's
                cross-entropies are understood to take logits, because exits give logits.
            exit_weights: sequence of `num_exits` floats or `None`. Weights in the sum of the
                exits' losses; `None` weighs each by 1, as the papers do.
            metrics: sequence of strings or `keras.metrics.Metric`. Each exit gets its own copy.
            distillation: `keras_adaptive.training.losses.LastExitDistillation` or `None`. Sample
                weights and exit weights do not weigh its part of the loss.
            **kwargs: as in `keras.Model.compile`. `jit_compile` is on for JAX only by default.

        Raises:
            ValueError: If `exit_weights` are not one number of 0 or more per exit, `loss` or a
                metric is given per exit: one serves all, or `loss` names one of probabilities.
        """
        if isinstance(loss, (list, tuple, dict)):
            raise ValueError(
                "`loss` is one loss for all exits, because all exits learn the same label. "
                f"Received: {type(loss).__name__} of {len(loss)}. Weigh exits with `exit_weights`."
            )
        if "loss_weights" in kwargs:
            raise ValueError(
                "Exits are weighed with `exit_weights`, one number per exit. Received: "
                f"loss_weights={kwargs['loss_weights']!r}."
            )
        if exit_weights is not None:
            _check_exit_weights(exit_weights, self.num_exits, self.name)
        metrics = _flat_list("metrics", metrics)
        weighted_metrics = _flat_list("weighted_metrics", kwargs.pop("weighted_metrics", None))
        exit_weights = None if exit_weights is None else [float(w) for w in exit_weights]
        loss_weights = exit_weights
        if distillation is not None:
            if not hasattr(distillation, "exit_weights"):
                raise ValueError(
                    "`distillation` is a `keras_adaptive.training.losses.LastExitDistillation`. "
                    f"Received: {distillation!r}."
                )
            loss_weights = [own * other for own, other in zip(
                exit_weights or [1.0] * self.num_exits, distillation.exit_weights(self.num_exits))]
        arguments = {
            "optimizer": optimizer,
            "loss": loss,
            "exit_weights": exit_weights,
            "metrics": metrics,
            "distillation": distillation,
            "weighted_metrics": weighted_metrics,
            **kwargs,
        }
        # Compiling hundreds of thin layers with XLA or inductor takes minutes and gains nothing on
        # TensorFlow and PyTorch; JAX has no other way to run fast. A file does not keep this
        # choice: it may be read on another backend.
        is_eager = kwargs.get("run_eagerly", False)
        kwargs.setdefault("jit_compile", keras.backend.backend() == "jax" and not is_eager)
        super().compile(
            optimizer=optimizer,
            loss=[loss_on_logits(loss) for _ in self.outputs],
            loss_weights=loss_weights,
            metrics=self._copies("metrics", metrics),
            weighted_metrics=self._copies("weighted_metrics", weighted_metrics),
            **kwargs,
        )
        # Only now: what is refused leaves the model as it was compiled before.
        self._distillation = distillation
        self._compile_arguments = _Untracked(arguments)

    def _copies(self, argument, metrics):
        # One metric object given to several outputs would pool their numbers.
        if not metrics:
            return None
        if self.num_exits == 1:
            return [metrics]
        return [[_copy(argument, metric) for metric in metrics] for _ in self.outputs]

    def _for_each_exit(self, value):
        if value is None or isinstance(value, (list, tuple, dict)):
            return value
        return [value] * self.num_exits

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(
            x=x, y=self._for_each_exit(y), y_pred=y_pred,
            sample_weight=self._for_each_exit(sample_weight), training=training)
        if self._distillation is None or self.num_exits == 1:
            return loss
        return loss + self._distillation(y_pred)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(
            x, self._for_each_exit(y), y_pred, self._for_each_exit(sample_weight))

    def get_compile_config(self):
        if not self.compiled or self._compile_arguments is None:
            return None
        # The optimizer as Keras holds it, with the loss scaling that mixed precision adds.
        arguments = {**self._compile_arguments.value, "optimizer": self.optimizer}
        return keras.saving.serialize_keras_object(arguments)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self):
        # Keras writes the graph only of models whose constructor is its own.
        graph = keras.Model(self.input, self.outputs, name=self.name)
        return {**graph.get_config(), **self._records()}

    def _records(self):
        """Return what a file keeps beside the graph."""
        return {
            "class_names": self.class_names,
            "input_rule": self.input_rule,
            "exit_macs": self.exit_macs,
            "frozen": frozen_positions(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        records = {name: config.pop(name, None)
                   for name in ("class_names", "input_rule", "exit_macs")}
        frozen = config.pop("frozen", None)
        graph = keras.Model.from_config(config, custom_objects=custom_objects)
        model = cls(graph.input, graph.outputs, name=graph.name, **records)
        freeze(model, frozen)
        return model


class ConfiguredModel(MultiExitModel):
    """Base of networks that a file rebuilds from their constructor's arguments, not a graph.

    A subclass stores its arguments, made `plain`, in `self.configuration` after calling
    `super().__init__`. The file keeps the precision that the network was built for, too.
    """

    def get_config(self):
        _check_not_quantized(self)
        return {**self.configuration, **self._records(), "name": self.name,
                "dtype_policy": self.dtype_policy.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        arguments = dict(config)
        frozen = arguments.pop("frozen", None)
        with use_precision(arguments.pop("dtype_policy")):
            model = cls(**arguments)
        freeze(model, frozen)
        return model


def plain(value):
    """Return a structure with NumPy's numbers and arrays as Python's, which files give back."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


# Without arguments, as Keras makes them of their names, they take probabilities.
_CROSS_ENTROPIES = {
    name: loss
    for loss, *names in (
        (keras.losses.SparseCategoricalCrossentropy, "sparse_categorical_crossentropy"),
        (keras.losses.CategoricalCrossentropy, "categorical_crossentropy"),
        (keras.losses.CategoricalFocalCrossentropy, "categorical_focal_crossentropy"),
        (keras.losses.BinaryCrossentropy, "binary_crossentropy", "bce", "BCE"),
        (keras.losses.BinaryFocalCrossentropy, "binary_focal_crossentropy"),
    )
    for name in (loss.__name__, *names)
}
_DIVERGENCES = ("KLDivergence", "kl_divergence", "kld", "KLD")


def loss_on_logits(loss):
    """Return a loss given as for `MultiExitModel.compile` as one of labels and logits."""
    if loss is None:
        loss = "sparse_categorical_crossentropy"
    if not isinstance(loss, str):
        return loss
    if loss in _DIVERGENCES:
        raise ValueError(
            f"{loss!r} takes probabilities, and a network that learns gives logits. Use "
            "'categorical_crossentropy', which differs from it by a constant, or a function: "
            "`lambda y, logits: keras.losses.kl_divergence(y, keras.ops.softmax(logits))`."
        )
    return _CROSS_ENTROPIES[loss](from_logits=True) if loss in _CROSS_ENTROPIES else loss


class _Untracked:
    """Keeps a value from Keras, which takes every metric in a model's attributes for its own."""

    def __init__(self, value):
        self.value = value


def _check_exit_weights(exit_weights, num_exits, name):
    if np.shape(exit_weights) != (num_exits,):
        raise ValueError(
            f"`exit_weights` takes one number per exit: {num_exits} for {name!r}. "
            f"Received: {exit_weights!r}."
        )
    if not all(np.isfinite(weight) and weight >= 0 for weight in exit_weights):
        raise ValueError(
            f"`exit_weights` are finite numbers of 0 or more. Received: {list(exit_weights)}."
        )


def _flat_list(argument, metrics):
    """Return metrics as a list in which each serves all exits."""
    if metrics is None:
        return []
    if isinstance(metrics, (str, keras.metrics.Metric)) or callable(metrics):
        return [metrics]
    if isinstance(metrics, dict) or any(isinstance(m, (list, tuple, dict)) for m in metrics):
        raise ValueError(
            f"`{argument}` is a flat list: each exit gets its own copy of every metric. "
            f"Received: {metrics!r}."
        )
    return list(metrics)


def _copy(argument, metric):
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return metric.__class__.from_config(metric.get_config())
    except Exception as error:  # whatever a user's constructor raises
        raise ValueError(
            f"Each exit gets its own copy of every metric, and {metric.name!r} of `{argument}`, a "
            f"{type(metric).__name__}, cannot be made from its `get_config` "
            f"({type(error).__name__}: {error}). Give a class of your own a `get_config` with all "
            "arguments of its constructor; in place of a wrapper give the function itself, or "
            "register it with `@keras.saving.register_keras_serializable()`."
        ) from error


def _check_not_quantized(model):
    quantized = [layer.name for layer in all_layers(model) if layer.quantization_mode]
    if quantized:
        raise ValueError(
            f"{model.name!r} is quantized ({quantized[0]!r} is), and is rebuilt from its "
            "arguments, without that. Save it before `quantize` and quantize what was loaded; or "
            "keep what it computes with `model.export`."
        )
