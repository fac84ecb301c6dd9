"""Fixtures that several folders of tests need."""

import pathlib
import shutil

import keras
import numpy as np
import pytest

from keras_adaptive import content
from keras_adaptive.models import RANet

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    if keras.backend.backend() == "jax":
        for item in items:
            if item.get_closest_marker("slow_on_jax"):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(7)


@pytest.fixture(scope="session")
def parity():
    """Folder with the outputs and counts of the authors' programs."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip("the authors' outputs (../shared/parity) are not on this machine")
    return folder


@pytest.fixture
def tiny_arguments():
    """Arguments of the smallest RANet with three sub-networks and four exits."""
    return {"channels": 4, "growth_rate": 4, "blocks": 2, "block_step": 1, "layers_per_block": 2,
            "num_classes": 5}


@pytest.fixture
def tiny_ranet(tiny_arguments):
    return RANet(**tiny_arguments)


@pytest.fixture
def pictures():
    """Eight normalised pictures for `tiny_ranet`."""
    return np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")


@pytest.fixture
def own_zoo(tmp_path, monkeypatch):
    """Folder that is the whole zoo, without entries so far."""
    real, folder = content.folder, tmp_path / "zoo"
    folder.mkdir()
    shutil.copy(real("zoo") / "published_results.csv", folder)
    monkeypatch.setattr(content, "folder", lambda kind: folder if kind == "zoo" else real(kind))
    return folder


@pytest.fixture
def make_data(tmp_path):
    """Function that writes random pictures of ten classes and returns the path of the .npz file."""
    def write(train, val, test):
        rng = np.random.default_rng(0)
        arrays = {"class_names": np.array([f"class {number}" for number in range(10)])}
        for part, count in (("train", train), ("val", val), ("test", test)):
            arrays[f"x_{part}"] = rng.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
            arrays[f"y_{part}"] = rng.integers(0, 10, count)
        np.savez(tmp_path / "made_up.npz", **arrays)
        return str(tmp_path / "made_up.npz")
    return write
