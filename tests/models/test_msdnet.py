import numpy as np
import pytest

from keras_adaptive.models import MSDNet

TINY = {"channels": 4, "growth_rate": 4, "blocks": 3, "layers_in_first_block": 2,
        "layers_per_block": 1, "num_classes": 5}


def test_outputs_are_named_after_their_exits():
    model = MSDNet(**TINY)

    logits = model(np.zeros((2, 32, 32, 3), "float32"))

    assert model.output_names == ["exit1", "exit2", "exit3"]
    assert [tuple(y.shape) for y in logits] == [(2, 5)] * 3


@pytest.mark.parametrize("arguments, message", [
    ({"growth_rate": 5, "growth_factors": (1, 1, 1)}, "growth_rate=5"),
    ({"pruning": "min", "blocks": 1, "layers_in_first_block": 1}, "at least 2 layers"),
    ({"pruning": "most"}, "pruning='most'"),
    ({"layers_in_first_block": 0}, "layers_in_first_block=0"),
    ({"blocks": 0}, "blocks=0"),
    ({"reduction": 0.01}, "filters=0"),
    ({"bottleneck_factors": (1, 2)}, "`bottleneck_factors` needs"),
    ({"input_shape": (16, 16, 3)}, "4x4 pixels"),
])
def test_what_crashes_the_authors_program_is_a_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        MSDNet(**{**TINY, **arguments})


def test_pruning_drops_the_finest_scales_first():
    """Five layers and three scales: after two layers one scale goes, after four the next."""
    model = MSDNet(**{**TINY, "blocks": 4})

    scales = {}
    for name in model.layers_run_by_exit[-1]:
        if name.startswith("layer"):
            number, scale = name.removeprefix("layer").split("_scale")
            scales.setdefault(int(number), []).append(int(scale))
    assert scales == {1: [1, 2, 3], 2: [1, 2, 3], 3: [2, 3], 4: [2, 3], 5: [3]}


def test_rebuilt_from_its_config_a_network_keeps_class_and_arguments():
    model = MSDNet(**TINY, use_bottleneck=False, reduction=0.0)

    again = MSDNet.from_config(model.get_config())

    assert again.get_config() == model.get_config()
    assert [v.path for v in again.weights] == [v.path for v in model.weights]


def test_without_reduction_there_are_no_transitions():
    model = MSDNet(**TINY, reduction=0.0)

    assert not [layer for layer in model.layers if layer.name.startswith("transition")]
