"""The demonstration: its pictures, what it reports, what it draws."""

import collections

import numpy as np
import pytest
from PIL import Image

from keras_adaptive import demo as demonstration
from keras_adaptive.demo import FOLDER, run_demo
from keras_adaptive.models import RANet
from keras_adaptive.training.datasets import CIFAR10_CLASSES

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def demo():
    """The demonstration with a tiny untrained network whose second exit takes everybody."""
    model = RANet(channels=4, growth_rate=4, blocks=2, block_step=1, layers_per_block=2,
                  normalization="cifar10", class_names=CIFAR10_CLASSES)
    return run_demo(model, threshold=[2, 0, 0, 0], repeats=2)


def test_pictures_are_of_all_classes():
    """A dozen pictures of the network's size, named by a class each, no class left out."""
    files = sorted(FOLDER.glob("*.png"))

    classes = collections.Counter(file.stem.rsplit("_", 1)[0] for file in files)
    assert len(files) == 12 and set(classes) == set(CIFAR10_CLASSES)
    for file in files:
        picture = Image.open(file)
        assert (picture.size, picture.mode) == ((32, 32), "RGB")


def test_source_of_the_pictures_is_told():
    assert "Krizhevsky" in (FOLDER / "SOURCE.md").read_text(encoding="utf-8")


def test_report_tells_what_was_done(demo):
    """Each picture stands with its exit; the cost is that of the exits taken."""
    summary = demo.prediction.summary()

    assert demo.prediction.exits.tolist() == [2] * 12 and demo.table().row_count == 12
    assert 0 < summary.mean_cost_share < 1
    assert f"with {summary.mean_cost_share:.1%} of the whole network's multiply-adds" in str(demo)
    assert f"{demo.num_right} of 12 right" in str(demo)
    assert demo.adaptive_ms > 0 and demo.whole_ms > 0


def test_right_answers_are_counted_by_class_name(demo):
    labels = np.array([file.stem.rsplit("_", 1)[0] for file in sorted(FOLDER.glob("*.png"))])

    assert demo.true_labels == labels.tolist()
    assert demo.num_right == (demo.prediction.labels == labels).sum()


def test_picture_of_the_result_is_written(demo, tmp_path):
    demo.save_picture(tmp_path / "demo.png")

    assert min(Image.open(tmp_path / "demo.png").size) > 200


def test_times_are_the_medians_of_what_they_are_called(demo, monkeypatch):
    """What is timed is the predictor, and the whole network on the same pictures."""
    timed = {}

    def time_in_turns(calls, repeats):
        timed.update({name: call() for name, call in calls.items()})
        return {"adaptive": [9.0, 1.0, 2.0], "whole": [5.0, 4.0, 30.0]}

    monkeypatch.setattr(demonstration, "time_in_turns", time_in_turns)
    model = RANet(channels=4, growth_rate=4, blocks=2, block_step=1, layers_per_block=2,
                  normalization="cifar10", class_names=CIFAR10_CLASSES)

    made = run_demo(model, threshold=[2, 0, 0, 0], repeats=3)

    assert (made.adaptive_ms, made.whole_ms) == (2.0, 5.0)
    assert "Time for all 12: 2.0 ms" in str(made) and "compiled: 5.0 ms (ratio 0.40" in str(made)
    assert timed["adaptive"].exits.tolist() == [2] * 12
    assert [np.shape(answer) for answer in timed["whole"]] == [(12, 10)] * 4


@pytest.mark.parametrize("arguments, message", [
    ({"input_shape": (64, 64, 3), "pooling": "global", "class_names": CIFAR10_CLASSES},
     "for 64x64 pixels and 10 classes"),
    ({"num_classes": 7}, "for 32x32 pixels and classes without names"),
    ({"num_classes": 2, "class_names": ["cat", "ant"]}, "for 32x32 pixels and 2 classes"),
])
def test_a_network_for_other_pictures_is_told_which_fit(arguments, message):
    model = RANet(**{"channels": 4, "growth_rate": 4, "blocks": 2, "block_step": 1,
                     "layers_per_block": 2, "normalization": "cifar10", **arguments})

    with pytest.raises(ValueError, match="pictures of 32x32 pixels.*" + message) as caught:
        run_demo(model, repeats=1)

    fitting = str(caught.value).split("these fit: ")[1]
    assert "ranet_cifar10, " in fitting and "imagenet" not in fitting
