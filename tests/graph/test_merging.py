import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_adaptive.graph.calls import Spec
from keras_adaptive.graph.merging import merge_siblings
from keras_adaptive.graph.steps import Alias, ChannelSlice, Convolution


def run(steps, values):
    """Compute 1x1 and 3x3 convolutions, slices and aliases with NumPy."""
    values = dict(values)
    for step in steps:
        x = values[step.input]
        if isinstance(step, ChannelSlice):
            x = x[..., step.start:step.stop]
        elif isinstance(step, Convolution):
            kernel, bias = step.weights
            x = np.pad(x, ((0, 0), *step.padding, (0, 0)))
            rows, columns = kernel.shape[:2]
            windows = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), (1, 2))
            x = np.einsum("bhwcij,ijcf->bhwf", windows, kernel) + bias
            x = np.maximum(x, 0) if step.activation else x
        values[step.output] = x
    return values


def convolution(rng, source, output, channels, filters, side=1, activation=None):
    kernel = rng.normal(size=(side, side, channels, filters)).astype("float32")
    bias = rng.normal(size=filters).astype("float32")
    pad = side // 2
    return Convolution((kernel, bias), source, output, padding=((pad, pad), (pad, pad)),
                       activation=activation)


def readers_of_one_map(widths, filters, second, seed, relu):
    """Thin convolutions that each read a prefix of value 0, and perhaps a second one behind."""
    rng = np.random.default_rng(seed)
    total = max(widths) + 1
    specs = {0: Spec((None, 5, 4, total), "float32")}
    fresh = itertools.count(1)
    steps, kept = [], []

    def new(channels):
        value = next(fresh)
        specs[value] = Spec((None, 5, 4, channels), "float32")
        return value

    for width, num_filters, behind in zip(widths, filters, second):
        part = new(width)
        steps.append(ChannelSlice(0, part, 0, width))
        steps.append(convolution(rng, part, new(num_filters), width, num_filters,
                                 activation=np.maximum if relu else None))
        if behind:
            steps.append(convolution(rng, steps[-1].output, new(behind), num_filters, behind, 3))
        kept.append(steps[-1].output)
    return steps, kept, specs, lambda: next(fresh)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(0, 5)),
                min_size=1, max_size=7), st.integers(0, 9), st.booleans())
def test_merging_changes_no_number(parts, seed, relu):
    """Whatever the widths of the convolutions, what leaves the stage is the same."""
    widths, filters, second = zip(*parts)
    steps, kept, specs, new_value = readers_of_one_map(widths, filters, second, seed, relu)
    maps = np.random.default_rng(1).normal(size=(2, 5, 4, specs[0].shape[-1]))

    merged = merge_siblings(steps, kept, specs, new_value)

    before, after = run(steps, {0: maps}), run(merged, {0: maps})
    for value in kept:
        np.testing.assert_allclose(after[value], before[value], atol=1e-4)


def test_readers_of_one_map_become_one_convolution():
    """Four 1x1 convolutions of prefixes, and the four behind them, become two."""
    steps, kept, specs, new_value = readers_of_one_map(
        [4, 6, 8, 10], [1, 1, 2, 1], [1, 1, 1, 1], 0, True)

    merged = merge_siblings(steps, kept, specs, new_value)

    convolutions = [step for step in merged if isinstance(step, Convolution)]
    assert [step.weights[0].shape for step in convolutions] == [(1, 1, 11, 5), (3, 3, 5, 4)]


def test_wide_convolutions_are_not_joined_side_by_side():
    """Zeros between parts would cost more than the parts: 64 x 64 twice is not 128 x 128."""
    steps, kept, specs, new_value = readers_of_one_map([8, 8], [64, 64], [64, 64], 0, True)

    merged = merge_siblings(steps, kept, specs, new_value)

    shapes = [step.weights[0].shape for step in merged if isinstance(step, Convolution)]
    assert shapes == [(1, 1, 9, 128), (3, 3, 64, 64), (3, 3, 64, 64)]


@pytest.mark.parametrize("kept", [(3,), (1, 3), (1, 2, 3)])
def test_values_that_leave_the_stage_stay(kept):
    """A value that a later stage reads is made, also where it is an alias or a slice."""
    rng = np.random.default_rng(0)
    specs = {v: Spec((None, 5, 4, c), "float32") for v, c in enumerate((6, 6, 4, 2))}
    steps = [Alias(0, 1), ChannelSlice(1, 2, 0, 4), convolution(rng, 2, 3, 4, 2)]
    maps = rng.normal(size=(1, 5, 4, 6))

    merged = merge_siblings(steps, set(kept), specs, itertools.count(4).__next__)

    before, after = run(steps, {0: maps}), run(merged, {0: maps})
    for value in kept:
        np.testing.assert_allclose(after[value], before[value], atol=1e-5)
