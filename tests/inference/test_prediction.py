import dataclasses
import json

import numpy as np
import pytest
import rich.console

from keras_adaptive.inference.prediction import Prediction


@pytest.fixture
def prediction():
    return Prediction(
        class_ids=[1, 0, 2],
        confidences=[0.9, 0.5, 0.6],
        probabilities=[[0.05, 0.9, 0.05], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]],
        exits=[1, 3, 1],
        macs=[10, 40, 10],
        full_macs=40,
        num_exits=3,
        class_names=["cat", "dog", "frog"],
        files=["a.png", "b.png", "c.png"],
    )


def test_a_picture_is_a_readable_record(prediction):
    """An integer index gives plain Python values, counted from either end."""
    last = prediction[-1]

    assert (last.class_id, last.label, last.exit, last.macs) == (2, "frog", 1, 10)
    assert last.file == "c.png"
    assert last.cost_share == 0.25
    assert last.probabilities.tolist() == pytest.approx([0.2, 0.2, 0.6])
    assert [picture.label for picture in prediction] == ["dog", "cat", "frog"]
    with pytest.raises(IndexError):
        prediction[3]


@pytest.mark.parametrize(
    "index, expected",
    [
        (slice(1, None), ["cat", "frog"]),
        ([2, 0], ["frog", "dog"]),
        (np.array([True, False, True]), ["dog", "frog"]),
        (slice(0, 0), []),
    ],
)
def test_a_part_of_a_prediction_is_a_prediction(prediction, index, expected):
    """Slices, positions and masks keep every array in step."""
    part = prediction[index]

    assert isinstance(part, Prediction)
    assert part.labels.tolist() == expected
    assert [picture.label for picture in part] == expected
    assert len(part.files) == len(part.probabilities) == len(expected)


def test_the_summary_tells_what_was_saved(prediction):
    """Mean cost is relative to the whole network; every exit has a share, used or not."""
    summary = prediction.summary()

    assert summary.mean_macs == 20
    assert summary.mean_cost_share == 0.5
    assert summary.exit_shares == pytest.approx((2 / 3, 0, 1 / 3))
    assert "50.0% of the full cost" in repr(prediction)
    assert "3 pictures" in repr(prediction)


def test_an_empty_prediction_works_like_any_other():
    """No pictures is a result, not an accident."""
    empty = Prediction([], [], np.zeros((0, 3)), [], [], 40, 2)

    assert len(empty) == 0 and list(empty) == []
    assert empty.labels is None
    assert empty.summary().mean_macs is None
    assert json.loads(empty.to_json())["summary"]["exit_shares"] == [0, 0]
    assert repr(empty) == "Prediction(no pictures)"


def test_json_holds_every_picture(prediction):
    """The text is valid JSON; class probabilities come on request only."""
    short = json.loads(prediction.to_json())
    long = json.loads(prediction.to_json(probabilities=True))

    assert [picture["label"] for picture in short["pictures"]] == ["dog", "cat", "frog"]
    assert short["pictures"][0]["cost_share"] == 0.25
    assert short["summary"]["num_pictures"] == 3
    assert "probabilities" not in short["pictures"][0]
    assert long["pictures"][1]["probabilities"] == [0.5, 0.25, 0.25]


def test_brackets_in_file_names_are_no_markup(prediction):
    odd = dataclasses.replace(prediction, files=["p[/b]/a.png", "photos [old]/b.png", "c.png"])
    console = rich.console.Console(width=100)
    with console.capture() as capture:
        console.print(odd.table())

    assert "p[/b]/a.png" in capture.get() and "photos [old]/b.png" in capture.get()


def test_the_table_stops_at_the_row_asked_for(prediction):
    """A long prediction stays readable, and the reader is told what is missing."""
    console = rich.console.Console(width=100)
    with console.capture() as capture:
        console.print(prediction.table(max_rows=2))

    assert "b.png" in capture.get() and "3 of 3" in capture.get()
    assert "c.png" not in capture.get()
    assert "and 1 more" in capture.get()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"exits": [1, 1]}, "`exits` takes one value per picture, 3"),
        ({"exits": [0, 1, 2]}, "counts from 1 to `num_exits`=3"),
        ({"exits": [1, 1, 4]}, "counts from 1 to `num_exits`=3"),
        ({"class_ids": [0, 1, 3]}, "positions in 3 classes"),
        ({"macs": [1, 1, -1]}, "must not be negative"),
        ({"probabilities": [0.1, 0.2, 0.3]}, "one row of class probabilities per picture"),
        ({"class_names": ["cat", "dog"]}, r"one name per class \(3\). Received 2"),
        ({"files": ["a.png"]}, r"one path per picture \(3\). Received 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(prediction, change, message):
    """A record that contradicts itself never comes into being."""
    fields = {name: getattr(prediction, name) for name in prediction.__dataclass_fields__}

    with pytest.raises(ValueError, match=message):
        Prediction(**(fields | change))


def test_the_likeliest_classes_are_named():
    """Surest first, all where fewer are there than wanted, numbers where there are no names."""
    probabilities = [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]
    prediction = Prediction([1, 0], [0.6, 0.5], probabilities, [1, 1], [1, 1], 2, 2,
                            ["cat", "dog", "fox"])

    assert [[name for name, _ in top] for top in prediction.top(2)] == [
        ["dog", "fox"], ["cat", "fox"]]
    assert prediction[0].top(9)[-1] == ("cat", pytest.approx(0.1))
    assert "class_names" not in prediction[0].to_dict(probabilities=True)
    nameless = Prediction([1], [0.6], probabilities[:1], [1], [1], 2, 2)
    assert nameless.top(1) == [[(1, pytest.approx(0.6))]]
