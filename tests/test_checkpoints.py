"""Checkpoints of the authors' programs. That logits equal theirs is tested in `models`."""

import json

import keras
import numpy as np
import pytest

from keras_adaptive import checkpoints, cli
from keras_adaptive.checkpoints import CheckpointError, from_state_dict, from_torch, translate

ARGS = {
    "arch": "msdnet", "data": "cifar10", "nBlocks": 2, "nChannels": 4, "base": 2, "step": 1,
    "stepmode": "even", "growthRate": 4, "grFactor": "1-2", "bnFactor": [1, 2], "prune": "max",
    "bottleneck": True, "reduction": 0.5, "arch_note": "ignored",
}


def state_of(args, size=24, **changes):
    """Return a state dict that fits, with random weights: zeros where the shapes say so."""
    network, arguments = translate(args, size)
    rng = np.random.default_rng(0)
    state = {place.name: rng.uniform(0.5, 1, place.torch_shape).astype("float32")
             for place in checkpoints._places(network(**arguments))}
    return {**state, **changes}


@pytest.fixture(scope="module")
def state():
    return state_of(ARGS)


def test_weights_land_where_their_names_say(state):
    """PyTorch's kernels are (out, in, height, width), its dense ones (out, in)."""
    model = from_state_dict(state, ARGS, 24)

    stem = keras.ops.convert_to_numpy(model.get_layer("stem").conv.kernel)
    np.testing.assert_array_equal(
        stem, state["blocks.0.0.layers.0.net.0.weight"].transpose(2, 3, 1, 0))
    head = model.get_layer("exit2").classifier
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(head.kernel),
                                  state["classifier.1.linear.weight"].T)
    assert model.input_shape == (None, 24, 24, 3)


def test_names_may_begin_with_module(state):
    prefixed = {f"module.{name}": value for name, value in state.items()}

    ours, theirs = (from_state_dict(s, ARGS, 24).get_weights() for s in (prefixed, state))

    for a, b in zip(ours, theirs):
        np.testing.assert_array_equal(a, b)


def test_one_error_lists_everything_that_does_not_fit(state):
    broken = dict(state)
    del broken["classifier.0.linear.bias"]
    broken["classifier.7.linear.bias"] = np.zeros(3, "float32")
    broken["classifier.1.linear.weight"] = np.zeros((4, 4), "float32")

    with pytest.raises(CheckpointError) as caught:
        from_state_dict(broken, ARGS, 24)

    message = str(caught.value)
    assert "1 missing: classifier.0.linear.bias" in message
    assert "1 unknown: classifier.7.linear.bias" in message
    assert "classifier.1.linear.weight has the shape (4, 4), not (10, 128)" in message


def test_weights_that_no_exit_uses_are_listed_in_a_warning(parity):
    """The authors' small MSDNet has a layer that nothing reads."""
    args = json.loads((parity / "imta" / "config.json").read_text())["args"]
    fitting = state_of(args)
    idle = "blocks.2.0.layers.0.conv_normal.net.0.weight"

    with pytest.warns(UserWarning, match=f"1 weights belong to layers that no exit uses.*{idle}"):
        from_state_dict({**fitting, idle: np.zeros(1)}, args, 24)


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"epoch": 3, "best_prec1": 70.5, "arch": "msdnet", "state_dict": {
        f"module.{name}": value for name, value in state.items()}},
])
def test_files_are_read_bare_and_wrapped(state, tmp_path, wrap):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(value) for name, value in state.items()}
    torch.save(wrap(tensors), tmp_path / "checkpoint.pth")

    model = from_torch(tmp_path / "checkpoint.pth", ARGS, 24)

    for ours, theirs in zip(model.get_weights(), from_state_dict(state, ARGS, 24).get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_of_the_authors_is_read(parity):
    pytest.importorskip("torch")
    args = json.loads((parity / "ranet_c1_real" / "config.json").read_text())["args"]

    model = from_torch(parity / "ranet_c1_real" / "checkpoint.pth", args)

    with np.load(parity / "ranet_c1_real" / "io.npz") as given:
        logits = model(np.moveaxis(given["x"], 1, -1), training=False)
        assert np.abs(keras.ops.convert_to_numpy(logits[-1]) - given["logits_5"]).max() < 2e-4


def test_tensors_are_taken_as_arrays_are(state):
    """bfloat16 is what NumPy lacks; its values are exact in float32."""
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(value).bfloat16() for name, value in state.items()}

    model = from_state_dict(tensors, ARGS, 24)

    rounded = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    for ours, theirs in zip(model.get_weights(), from_state_dict(rounded, ARGS, 24).get_weights()):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("changes, message", [
    ({"classifier.0.linear.bias": np.full(10, np.nan)}, "1 weights hold NaN.*linear.bias"),
    ({"module.classifier.0.linear.bias": np.zeros(10)}, "with and without the prefix"),
    ({0: np.zeros(10)}, "has names.*the key 0, of type int"),
    ({"classifier.0.linear.bias": np.array(["a"] * 10)}, "real numbers.*dtype <U1"),
])
def test_what_is_no_weight_of_one_network_is_told(state, changes, message):
    with pytest.raises(CheckpointError, match=message):
        from_state_dict({**state, **changes}, ARGS, 24)


def test_a_first_sub_network_without_blocks_is_left_out():
    """The authors' program builds it (`nBlocks` 0); its base features then feed no exit."""
    args = {"arch": "RANet", "data": "cifar10", "nBlocks": 0, "nChannels": 4, "growthRate": 4,
            "grFactor": "4-2-1", "bnFactor": "4-2-1", "scale_list": "1-2-3", "block_step": 1,
            "compress_factor": 0.25, "step": 2, "stepmode": "even", "reduction": 0.5}
    idle = "FirstLayer.layers.2.net.0.weight"

    with pytest.warns(UserWarning, match=f"no exit uses.*{idle}"):
        model = from_state_dict(state_of(args, size=16, **{idle: np.zeros(1)}), args, 16)

    logits = model(np.zeros((1, 16, 16, 3), "float32"))
    assert [tuple(exit_logits.shape) for exit_logits in logits] == [(1, 10)] * 2


def test_photographs_become_inputs_as_in_the_authors_tests(state):
    """ImageNet: the shorter side becomes 256, 224 are cut out; CIFAR: pictures as they are."""
    from keras_adaptive.picture_files import InputRule

    cifar = from_state_dict(state, ARGS, 24, normalization="cifar10").input_rule
    imagenet = translate({**ARGS, "data": "ImageNet"})[1]["input_rule"]

    assert InputRule.from_dict(cifar, 3) == InputRule((24, 24), 3)
    assert InputRule.from_dict(imagenet, 3) == InputRule((224, 224), 3, "bilinear", 0.875)


def test_the_command_writes_weights_and_model(state, tmp_path, capsys):
    """Into a folder that it makes; what it prints is Python that reads them."""
    torch = pytest.importorskip("torch")
    torch.save({name: torch.tensor(value) for name, value in state.items()}, tmp_path / "c.pth")
    (tmp_path / "args.json").write_text(json.dumps(ARGS))

    status = cli.main(["convert", str(tmp_path / "c.pth"), "--args", str(tmp_path / "args.json"),
                       "--image-size", "24", "--output", str(tmp_path / "new" / "net")])

    assert status == 0
    namespace = {}
    exec(capsys.readouterr().out, namespace)
    for ours, theirs in zip(namespace["model"].get_weights(),
                            from_state_dict(state, ARGS, 24).get_weights()):
        np.testing.assert_array_equal(ours, theirs)
