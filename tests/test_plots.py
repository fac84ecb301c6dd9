"""Figures: the right content in the right place. How they look is for eyes, not for tests."""

import numpy as np
import pytest
from PIL import Image

from keras_adaptive.evaluation import ExitOutputs
from keras_adaptive.inference.prediction import Prediction
from keras_adaptive.plots import (
    check_figure_path,
    new_figure,
    plot_gallery,
    plot_pictures,
    plot_thumbnails,
    save_figure,
)

pytest.importorskip("matplotlib")

CLASSES = ["cat", "dog", "frog"]
MACS = np.array([10, 25, 40])


def _prediction(exits, confidences, class_ids=None):
    exits = np.array(exits)
    class_ids = np.zeros(len(exits), int) if class_ids is None else np.array(class_ids)
    probabilities = np.zeros((len(exits), 3))
    return Prediction(class_ids, confidences, probabilities, exits, MACS[exits - 1], 40, 3, CLASSES)


@pytest.fixture
def pictures():
    return [np.full((8, 8, 3), shade, "uint8") for shade in range(0, 250, 50)]


def _texts(figure):
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return [text.get_text() for text in texts]


def test_rows_follow_exits_and_confidence(pictures):
    """The cheapest exit comes first, within an exit the surest picture."""
    prediction = _prediction([3, 1, 1, 3, 1], [0.5, 0.8, 0.9, 0.6, 0.7])

    figure = plot_pictures(pictures, prediction, max_columns=2)

    shades = [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes if axes.images]
    assert shades == [100, 50, 200, 150, 0]
    names = [text for text in _texts(figure) if text.startswith("Exit")]
    assert names == ["Exit 1", "Exit 3"], "an exit has its name once, also over two rows"


def test_right_and_wrong_are_told_apart(pictures):
    """A wrong answer shows the true class, and has another colour than a right one."""
    prediction = _prediction([1, 2], [0.9, 0.8], class_ids=[0, 1])

    figure = plot_pictures(pictures[:2], prediction, true_labels=["cat", "frog"])

    assert [text for text in _texts(figure) if text][-5:] == [
        "cat", "90.0%, right", "dog", "80.0%, wrong:", "frog"]
    right, wrong = (axes.spines["top"].get_edgecolor() for axes in figure.axes if axes.images)
    assert right != wrong


def test_unknown_truth_is_not_judged(pictures):
    """Without true labels no picture is called right or wrong."""
    figure = plot_pictures(pictures, _prediction([1] * 5, [0.9] * 5))

    assert not any("right" in text or "wrong" in text for text in _texts(figure))


def test_share_of_cost_and_saving_are_written(pictures):
    figure = plot_pictures(pictures[:2], _prediction([1, 3], [0.9, 0.9]))

    assert "25% of the full cost" in _texts(figure)
    assert "2 pictures for 62% of the work of the whole network" in _texts(figure)


def test_certainty_is_not_rounded_up(pictures):
    """A confidence just below 1 does not read as 100 %."""
    figure = plot_pictures(pictures[:1], _prediction([1], [0.9996]))

    assert ">99.9%" in _texts(figure)


def test_long_names_stay_in_their_columns():
    """Neither runs into its neighbour, the answer or the true class; what fits is left whole."""
    names = ["German shepherd", "standard poodle", "a name that no column has room for", "W" * 40]
    prediction = Prediction(np.arange(4), [0.9] * 4, np.zeros((4, 4)), np.ones(4, int),
                            MACS[[0] * 4], 40, 3, names)

    figure = plot_pictures(np.zeros((4, 8, 8, 3), "uint8"), prediction, names[::-1])

    figure.draw_without_rendering()
    pictures = [axes for axes in figure.axes if axes.images]
    step = (pictures[1].get_position().x0 - pictures[0].get_position().x0) * figure.bbox.width
    texts = [text for axes in pictures for text in axes.texts]
    assert all(text.get_window_extent().width < step for text in texts)
    assert {"German shepherd", "standard poodle"} <= {text.get_text() for text in texts}
    bottoms = [axes.texts[-1].get_window_extent().y0 for axes in pictures]
    assert min(bottoms) > 0


@pytest.mark.parametrize("name, shown", [
    ("German shepherd", "German\nshepherd"), ("academic gown", "academic\ngown"),
    ("swimming trunks", "swimming\ntrunks"), ("M" * 30, "MMMMMMM…")])
def test_names_beside_a_gallery_lie_between_its_edge_and_its_pictures(name, shown):
    figure = plot_gallery(np.zeros((7, 8, 8, 3), "uint8"), _gallery_outputs(), 0.9, [name, "dog"])

    figure.draw_without_rendering()
    first = min(axes.get_position().x0 for axes in figure.axes) * figure.bbox.width
    label, = {text for text in figure.texts if text.get_text() == shown}
    box = label.get_window_extent()
    assert 0 < box.x0 and box.x1 < first


@pytest.mark.parametrize("count", [0, 4])
def test_number_of_pictures_must_be_that_of_the_answers(pictures, count):
    with pytest.raises(ValueError, match=f"Received {count} pictures and 5 answers"):
        plot_pictures(pictures[:count], _prediction([1] * 5, [0.9] * 5))


def _gallery_outputs():
    """Three exits on seven pictures of two classes; see the test for who is what."""
    sure, doubtful, wrong = [0.95, 0.05], [0.6, 0.4], [0.4, 0.6]
    return ExitOutputs([
        [[0.91, 0.09], sure, wrong, wrong, doubtful, [0.03, 0.97], [0.3, 0.7]],
        [sure, sure, wrong, sure, sure, sure, [0.3, 0.7]],
        [sure, sure, doubtful, sure, sure, sure, [0.1, 0.9]],
    ], [0, 0, 0, 0, 0, 0, 1])


def test_gallery_has_sure_first_exits_beside_pictures_that_needed_the_last():
    """Easy: left at the first exit and right, the surest first. Hard: right at the last alone."""
    shades = [np.full((8, 8, 3), 10 * k, "uint8") for k in range(7)]

    figure = plot_gallery(shades, _gallery_outputs(), 0.9, ["cat", "dog"])

    shown = [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes]
    assert shown == [10, 0, 20], "surest easy one, next easy one, hard one"
    left = [axes.get_position().x0 for axes in figure.axes]
    assert left[0] < left[1] < left[2]
    assert {"cat", "dog", "easy", "hard"} <= set(_texts(figure))


def test_gallery_shows_some_of_many_classes():
    """No more than `max_classes`: those with easy and hard pictures first, then with either."""
    probabilities = np.full((2, 4, 30), 0.01)
    labels = [20, 20, 7, 5]
    for exit, picture, answer in ((0, 0, 20), (1, 0, 20),  # easy
                                  (0, 1, 3), (1, 1, 20),  # hard
                                  (0, 2, 7), (1, 2, 7),  # easy
                                  (0, 3, 6), (1, 3, 6)):  # wrong
        probabilities[exit, picture, answer] = 0.71 if (exit, picture) != (0, 1) else 0.4
    probabilities[0, 1, 4] = 0.32
    outputs = ExitOutputs(probabilities, labels)

    figure = plot_gallery(np.zeros((4, 8, 8, 3), "uint8"), outputs, 0.5, max_classes=2)

    names = [text for text in _texts(figure) if text.startswith("class")]
    assert names == ["class 7", "class 20"]


@pytest.mark.parametrize("count, exits", [(2, 2), (3, 1)])
def test_gallery_needs_a_picture_per_answer_and_two_exits(count, exits):
    outputs = ExitOutputs(np.full((exits, 3, 2), 0.5), [0, 1, 0])

    with pytest.raises(ValueError, match=f"{count} pictures, 3 answers, {exits} exits"):
        plot_gallery(np.zeros((count, 8, 8, 3), "uint8"), outputs, 0.5)


def test_figure_is_written_whole_and_into_a_new_folder(tmp_path, pictures):
    path = tmp_path / "new" / "figure.png"

    save_figure(plot_pictures(pictures, _prediction([1] * 5, [0.9] * 5)), path)

    assert Image.open(path).format == "PNG"
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]


def test_fewer_colours_make_a_figure_smaller(tmp_path):
    noise = [np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype="uint8")]
    figure = plot_pictures(noise, _prediction([1], [0.9]))

    save_figure(figure, tmp_path / "all.png")
    save_figure(figure, tmp_path / "few.png", num_colors=16)

    assert (tmp_path / "few.png").stat().st_size < (tmp_path / "all.png").stat().st_size
    assert Image.open(tmp_path / "few.png").size == Image.open(tmp_path / "all.png").size


@pytest.mark.parametrize("num_colors", [None, 16])
def test_a_figure_is_saved_under_the_very_name(tmp_path, num_colors):
    """Also without an ending, as PNG, and nothing else is left in the folder."""
    save_figure(new_figure(1, 1), tmp_path / "figure", num_colors=num_colors)

    assert [path.name for path in tmp_path.iterdir()] == ["figure"]
    assert Image.open(tmp_path / "figure").format == "PNG"


def test_a_format_that_cannot_be_written_is_told_beforehand():
    check_figure_path("figures/accuracy.PNG")

    with pytest.raises(ValueError, match="png.*Received: 'accuracy.xyz'"):
        check_figure_path("accuracy.xyz")


def test_thumbnails_stand_beside_their_pictures(tmp_path):
    """Original, bicubic and learned, a row per picture, each with its own pixels."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), "uint8")
    learned = np.zeros((2, 4, 4, 3), "uint8")

    figure = plot_thumbnails(pictures, learned)

    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert [image.shape[:2] for image in shown] == [(8, 8)] * 2 + [(4, 4)] * 4
    np.testing.assert_array_equal(shown[1], pictures[1])
    assert shown[2].any() and not shown[4].any()
    assert {"original", "bicubic, antialiased", "learned"} <= set(_texts(figure))
    save_figure(figure, tmp_path / "thumbnails.png")
    with pytest.raises(ValueError, match="whole ratio"):
        plot_thumbnails(pictures, pictures)
