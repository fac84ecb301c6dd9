"""Fewer and larger steps: convolutions that read the same map become one.

A sub-network of RANet reads every feature of the one before through a thin convolution of its own.
Each reads a prefix of the channels of one tensor. Together they are one convolution whose kernel
has zeros where a part does not look, which processors run far better than many thin ones.
"""

import collections
import dataclasses
import itertools

import numpy as np

from keras_adaptive.graph.steps import Alias, ChannelSlice, Convolution, inputs_of, outputs_of
from keras_adaptive.layers.resize import AlignedResize

# Processors compute channels in blocks of this many; a thin convolution costs a whole block.
_BLOCK = 8


def merge_siblings(steps, kept, specs, new_value):
    """Join convolutions, and resizes, that read the same map.

    What comes out are the same numbers, but for rounding.

    Args:
        steps: list of the steps of a stage, the convolutions' weights as pairs of arrays.
        kept: collection of values that are needed after the last step.
        specs: mapping from value to `Spec`; the new values are added.
        new_value: function without arguments that returns an unused value.

    Returns:
        List of steps.
    """
    graph = _Graph(steps, kept, specs, new_value)
    graph.remove_aliases()
    graph.join(_readers_of_prefixes, _join_prefixes)
    graph.join(_readers_of_parts, _join_parts)
    graph.join(_resizes_of_parts, _join_resizes)
    return graph.without_idle_steps()


class _Graph:
    """The steps of a stage while they are changed."""

    def __init__(self, steps, kept, specs, new_value):
        self.steps = list(steps)
        self.kept = set(kept)
        self.specs = specs
        self.new_value = new_value

    def remove_aliases(self):
        """Read a value under its first number everywhere but where it leaves the stage."""
        first = {}
        for step in self.steps:
            if isinstance(step, Alias):
                first[step.output] = first.get(step.input, step.input)
        self.steps = [
            step if isinstance(step, Alias) else _reading(step, first) for step in self.steps
        ]

    def join(self, find, join):
        """Replace groups of steps by what joins them, at the place of each group's first step."""
        slices = {step.output: step for step in self.steps if isinstance(step, ChannelSlice)}
        place = {id(step): position for position, step in enumerate(self.steps)}
        replaced = {}
        for group in find(self.steps, slices, self.specs):
            replaced.update((id(step), []) for step in group)
            first = min(group, key=lambda step: place[id(step)])
            replaced[id(first)] = join(group, slices, self.specs, self.new_value)
        self.steps = list(itertools.chain.from_iterable(
            replaced.get(id(step), [step]) for step in self.steps))

    def without_idle_steps(self):
        """Return the steps whose outputs somebody reads."""
        wanted, steps = set(self.kept), []
        for step in reversed(self.steps):
            if wanted.intersection(outputs_of(step)):
                wanted.update(inputs_of(step))
                steps.append(step)
        return steps[::-1]


def _reading(step, first):
    """Return a step that reads other numbers of the same values."""
    if isinstance(step, (Convolution, ChannelSlice)):
        return dataclasses.replace(step, input=first.get(step.input, step.input))
    return dataclasses.replace(step, inputs=tuple(first.get(v, v) for v in step.inputs))


def _geometry(step):
    """Return what convolutions must have in common to become one."""
    return (step.strides, step.padding, step.dilation, step.activation,
            step.weights[0].shape[:2])


def _source(value, slices):
    """Return the value that a slice is cut from, and the range of its channels."""
    piece = slices.get(value)
    return (value, 0, None) if piece is None else (piece.input, piece.start, piece.stop)


def _readers_of_prefixes(steps, slices, specs):
    """Yield groups of pointwise convolutions of the first channels of one map."""
    groups = collections.defaultdict(list)
    for step in steps:
        if isinstance(step, Convolution) and step.groups == 1:
            root, start, _ = _source(step.input, slices)
            if start == 0 and step.weights[0].shape[:2] == (1, 1):
                groups[root, _geometry(step)].append(step)
    return [group for group in groups.values() if len(group) > 1]


def _join_prefixes(group, slices, specs, new_value):
    root = _source(group[0].input, slices)[0]
    num_channels = specs[root].shape[-1]
    kernels = []
    for step in group:
        kernel = step.weights[0]
        missing = num_channels - kernel.shape[2]
        kernels.append(np.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0))))
    return _joined(group, root, np.concatenate(kernels, axis=-1), specs, new_value)


def _joined(group, source, kernel, specs, new_value):
    """Return a convolution in place of a group, and the slices that are the group's outputs."""
    output = new_value()
    spec = specs[group[0].output]
    specs[output] = dataclasses.replace(spec, shape=(*spec.shape[:-1], kernel.shape[-1]))
    bias = np.concatenate([step.weights[1] for step in group])
    whole = dataclasses.replace(group[0], weights=(kernel, bias), input=source, output=output)
    return [whole, *_slices(output, [(step.output, specs[step.output].shape[-1])
                                     for step in group])]


def _slices(source, outputs):
    ends = list(itertools.accumulate(size for _, size in outputs))
    return [ChannelSlice(source, output, end - size, end)
            for (output, size), end in zip(outputs, ends)]


def _readers_of_parts(steps, slices, specs):
    """Yield groups of convolutions of neighbouring channels of one map, thin enough to be joined.

    Joined, each reads the others' channels too, with zeros. This pays as long as there are no more
    blocks of channels to multiply than before.
    """
    runs = collections.defaultdict(list)
    for step in steps:
        if isinstance(step, Convolution) and step.groups == 1 and step.input in slices:
            runs[slices[step.input].input, _geometry(step)].append(step)
    for run in runs.values():
        run.sort(key=lambda step: slices[step.input].start)
        group = []
        for step in run:
            if group and (slices[group[-1].input].stop != slices[step.input].start
                          or _blocks([*group, step]) > sum(_blocks([s]) for s in [*group, step])):
                if len(group) > 1:
                    yield group
                group = []
            group.append(step)
        if len(group) > 1:
            yield group


def _blocks(group):
    """Return how many pairs of blocks of channels a joined convolution multiplies."""
    read = sum(step.weights[0].shape[2] for step in group)
    made = sum(step.weights[0].shape[3] for step in group)
    return -(-read // _BLOCK) * -(-made // _BLOCK)


def _join_parts(group, slices, specs, new_value):
    pieces = [slices[step.input] for step in group]
    source, before = _slice_of(pieces, specs, new_value)
    rows, columns = group[0].weights[0].shape[:2]
    read = sum(step.weights[0].shape[2] for step in group)
    made = sum(step.weights[0].shape[3] for step in group)
    kernel = np.zeros((rows, columns, read, made), "float32")
    row = column = 0
    for step in group:
        part = step.weights[0]
        kernel[:, :, row:row + part.shape[2], column:column + part.shape[3]] = part
        row, column = row + part.shape[2], column + part.shape[3]
    return [*before, *_joined(group, source, kernel, specs, new_value)]


def _slice_of(pieces, specs, new_value):
    """Return the value of neighbouring slices together, and the step that cuts it, if any."""
    root, start, stop = pieces[0].input, pieces[0].start, pieces[-1].stop
    if (start, stop) == (0, specs[root].shape[-1]):
        return root, []
    output = new_value()
    specs[output] = dataclasses.replace(
        specs[root], shape=(*specs[root].shape[:-1], stop - start))
    return output, [ChannelSlice(root, output, start, stop)]


def _resizes_of_parts(steps, slices, specs):
    """Yield groups of resizes, to one size, of neighbouring channels of one map."""
    runs = collections.defaultdict(list)
    for step in steps:
        operation = getattr(step, "operation", None)
        if isinstance(operation, AlignedResize) and step.inputs[0] in slices:
            runs[slices[step.inputs[0]].input, operation.height, operation.width].append(step)
    for run in runs.values():
        run.sort(key=lambda step: slices[step.inputs[0]].start)
        group = run[:1]
        for step in run[1:]:
            if slices[group[-1].inputs[0]].stop != slices[step.inputs[0]].start:
                if len(group) > 1:
                    yield group
                group = []
            group.append(step)
        if len(group) > 1:
            yield group


def _join_resizes(group, slices, specs, new_value):
    source, before = _slice_of([slices[step.inputs[0]] for step in group], specs, new_value)
    output = new_value()
    spec = specs[group[0].outputs[0]]
    specs[output] = dataclasses.replace(
        spec, shape=(*spec.shape[:-1], specs[source].shape[-1]))
    whole = dataclasses.replace(group[0], inputs=(source,), outputs=(output,))
    outputs = [(step.outputs[0], specs[step.outputs[0]].shape[-1]) for step in group]
    return [*before, whole, *_slices(output, outputs)]
