"""Files of PyTorch: what is read of them, and what messages say of the rest."""

import argparse

import numpy as np
import pytest

from keras_adaptive.torch_files import read_state

torch = pytest.importorskip("torch")


def test_files_that_hold_something_else_are_refused(tmp_path):
    """Nothing of them is loaded."""
    torch.save({"state_dict": {"a": 1}}, tmp_path / "numbers.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")

    with pytest.raises(ValueError, match="holds no state dict"):
        read_state(tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match="text.pth' is no checkpoint of tensors: Unsupported"):
        read_state(tmp_path / "text.pth")
    with pytest.raises(ValueError, match="There is no file"):
        read_state(tmp_path / "nothing.pth")


@pytest.mark.parametrize("extra, what", [
    (np.float64(70.5), "scalar"), (argparse.Namespace(step=2), "argparse.Namespace"),
    (pytest.importorskip, "importorskip"),
])
def test_what_stands_beside_the_tensors_is_named_with_the_cure(tmp_path, extra, what):
    """And the cure works, where it is trusted; PyTorch's colours are left out."""
    path = tmp_path / "best.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "best_prec1": extra}, path)

    with pytest.raises(ValueError, match=f"more than tensors.*{what}, too.*state_dict") as caught:
        read_state(path)

    assert "\x1b" not in str(caught.value)
    checkpoint = torch.load(path, weights_only=False)
    torch.save(checkpoint["state_dict"], tmp_path / "weights.pth")
    np.testing.assert_array_equal(read_state(tmp_path / "weights.pth")["a"], [1, 1])


def test_sparse_weights_are_refused_by_name(tmp_path):
    torch.save({"a.weight": torch.eye(2).to_sparse()}, tmp_path / "sparse.pth")

    with pytest.raises(ValueError, match="'a.weight' is sparse .*`.to_dense"):
        read_state(tmp_path / "sparse.pth")
