"""Cut a model with several outputs into stages that run one after the other."""

import warnings

import keras

from keras_adaptive.graph.flattening import flatten


class Stage(keras.layers.Layer):
    """The part of a model that one exit needs beyond what earlier exits needed.

    Calling a stage runs its operations as in inference. It takes the tensors `reads` and returns
    its exit's output, followed by the tensors `hands_on`, which are what the next stage reads:

        exit1, *carried = stages[0](pictures)
        exit2, *carried = stages[1](carried)

    A stage holds layers of the model itself, so both have the same variables. It is made by
    `split_into_stages` and is not saved: save the model and split it after loading.

    Attributes:
        index: int. Number of the exit, from 1.
        calls: tuple of `Call`, in the order in which they run.
        reads: tuple of ints, the values that the stage takes: the model's inputs for the first
            stage, what the stage before hands on for the others.
        exit_value: int, the value that is the exit's output.
        hands_on: tuple of ints, the values made or read so far that a later stage reads.
        needs: tuple of ints, those of `reads` that the stage itself uses.
        makes: tuple of ints, those of `hands_on` that it makes; the others only pass through.
        model_inputs: tuple of ints, the model's inputs.
        specs: mapping from value to `Spec`, for the whole model.

    Input: list of tensors, in the order of `reads`.
    Output: list of tensors, the exit's output and then those of `hands_on`.
    """

    def __init__(self, index, calls, reads, exit_value, hands_on, specs, model_inputs, name=None):
        # Values pass between stages in their own dtypes, whatever the precision in use.
        super().__init__(dtype="float32", autocast=False, name=name or f"stage{index}")
        self.index = index
        self.calls = tuple(calls)
        self.reads = tuple(reads)
        self.exit_value = exit_value
        self.hands_on = tuple(hands_on)
        self.specs = specs
        self.model_inputs = tuple(model_inputs)
        used = {exit_value, *(value for call in self.calls for value in call.inputs)}
        self.needs = tuple(value for value in self.reads if value in used)
        self.makes = tuple(value for value in self.hands_on if value not in self.reads)
        unique = {id(call.operation): call.operation for call in self.calls}
        self.parts = [part for part in unique.values() if isinstance(part, keras.layers.Layer)]
        self._values_to_drop = _last_uses(self.calls, {exit_value, *self.hands_on})
        self.build(None)

    def build(self, input_shape):
        # The layers of a model are built.
        pass

    def call(self, tensors, training=False):
        if not isinstance(tensors, (list, tuple)) or len(tensors) != len(self.reads):
            received = len(tensors) if isinstance(tensors, (list, tuple)) else "a single tensor"
            raise ValueError(
                f"Stage {self.index} takes a list of {len(self.reads)} tensors: "
                f"{'the inputs of the model' if self.index == 1 else 'what the stage before hands'}"
                f"{'' if self.index == 1 else ' on'}. Received: {received}."
            )
        values = dict(zip(self.reads, tensors))
        if self.index == 1:  # the model, too, converts its inputs
            values = {
                value: keras.ops.convert_to_tensor(tensor, dtype=self.specs[value].dtype)
                for value, tensor in values.items()
            }
        for call, to_drop in zip(self.calls, self._values_to_drop):
            values.update(zip(call.outputs, call.run(values)))
            for value in to_drop:
                del values[value]
        return [values[value] for value in (self.exit_value, *self.hands_on)]

    def get_config(self):
        raise NotImplementedError(
            f"{self.name!r} is a view on a model and is not saved. Save the model, and call "
            "`split_into_stages` on it after loading."
        )


def split_into_stages(model, order=None):
    """Cut a model at its outputs into stages, one per exit.

    Stage `k` holds exactly the operations that output `k` needs and no earlier output needed, so
    running the stages in sequence computes what the model computes in inference, and nothing twice.
    Nested models, and layers made of layers, are cut inside. The model is not changed.

    Args:
        model: `keras.Model`, Functional or Sequential. One output per exit, the earliest first.
        order: sequence of strings or `None`. Names of the outputs in the order of the exits; needed
            where the outputs are a dict.

    Returns:
        List of `Stage`, one per exit. Each takes what the one before hands on.

    Raises:
        ValueError: If `model` has no graph, or its outputs are a dict and no `order` is given.

    Warns:
        UserWarning: If an exit needs no operation beyond those of earlier exits; if a layer that
            could not be looked into feeds several exits, as it then runs whole in the first of
            them; if a tensor with a mask is handed on, as compiled stages drop masks.

    Reference:
        Lazy evaluation in [Huang et al., 2018](https://arxiv.org/abs/1703.09844), section 4.
    """
    graph = flatten(model, order)
    calls_of = graph.new_calls_per_output()
    _warn_about_idle_exits(graph, calls_of)
    _warn_about_opaque_layers(graph, calls_of)

    last_stage = {}  # of a value: the last stage that reads it
    for index, (calls, output) in enumerate(zip(calls_of, graph.outputs), start=1):
        for value in (output, *(value for call in calls for value in call.inputs)):
            last_stage[value] = index

    stages = []
    available, reads = set(graph.inputs), graph.inputs
    for index, (calls, output) in enumerate(zip(calls_of, graph.outputs), start=1):
        available.update(value for call in calls for value in call.outputs)
        hands_on = tuple(v for v in sorted(available) if last_stage.get(v, 0) > index)
        stages.append(Stage(index, calls, reads, output, hands_on, graph.specs, graph.inputs))
        available, reads = set(hands_on), hands_on
    _warn_about_masks(graph, stages)
    return stages


def _last_uses(calls, kept):
    """Return, for each call, the values that can be let go after it."""
    drops, seen = [], set(kept)
    for call in reversed(calls):
        used = {*call.inputs, *call.outputs} - seen
        seen |= used
        drops.append(tuple(sorted(used)))
    return drops[::-1]


def _warn_about_idle_exits(graph, calls_of):
    for index, (name, calls) in enumerate(zip(graph.output_names, calls_of), start=1):
        if not calls:
            warnings.warn(
                f"Exit {index} ({name!r}) needs no operation that earlier exits did not need, so "
                "its stage has no work. Leave the exit out, or change the order of the outputs.",
                stacklevel=3)


def _warn_about_opaque_layers(graph, calls_of):
    opaque = [
        (index, call) for index, calls in enumerate(calls_of, start=1) for call in calls
        if call.opaque and not _is_plain(call)
    ]
    if not opaque:
        return
    exits_of = _exits_fed(graph)
    for index, call in opaque:
        exits = sorted(set().union(*(exits_of.get(value, ()) for value in call.outputs)))
        if len(exits) > 1:
            warnings.warn(
                f"Layer {call.name!r} ({type(call.operation).__name__}) could not be looked into, "
                f"because {call.opaque}. It feeds exits {', '.join(map(str, exits))} and runs as a "
                f"whole in stage {index}, also what only later exits need.", stacklevel=3)


def _is_plain(call):
    # One of Keras's own layers with a single output, such as a convolution whose activation is a
    # layer: nothing in it could run later.
    return len(call.outputs) == 1 and type(call.operation).__module__.startswith("keras.")


def _exits_fed(graph):
    """Return, for each value, the numbers of the exits that depend on it."""
    exits_of = {}
    for index, output in enumerate(graph.outputs, start=1):
        exits_of.setdefault(output, set()).add(index)
    for call in reversed(graph.calls):
        exits = set().union(*(exits_of.get(value, ()) for value in call.outputs))
        for value in call.inputs:
            exits_of.setdefault(value, set()).update(exits)
    return exits_of


def _warn_about_masks(graph, stages):
    for stage in stages:
        masked = [value for value in stage.hands_on if graph.specs[value].has_mask]
        if masked:
            warnings.warn(
                f"Stage {stage.index} hands on {len(masked)} tensors with a Keras mask. Masks do "
                "not pass between compiled stages: the result may differ from the model's. Pass "
                "masks as tensors of their own.", stacklevel=3)
