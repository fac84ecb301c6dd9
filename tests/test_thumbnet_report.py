"""What a ThumbNet costs: counted numbers by hand, times that are there, tables and files."""

import csv
import dataclasses
import json
import types

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_adaptive import thumbnet_report
from keras_adaptive.agreement import measure_agreement
from keras_adaptive.layers import Downscaler
from keras_adaptive.models import ResNet
from keras_adaptive.models.thumbnet import ThumbNet
from keras_adaptive.thumbnails import quantize
from keras_adaptive.thumbnet_report import NetworkCost, Times, report


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 8, 8, 3), "uint8").repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module")
def thumbnet():
    keras.utils.set_random_seed(1)
    return ThumbNet.from_teacher(
        ResNet(20, 16, num_classes=5, normalization="cifar10"), hidden_filters=16)


@pytest.fixture(scope="module")
def measured(thumbnet, pictures):
    labels = (np.arange(6) % 5)[:, None]  # in a column, as `keras.datasets` gives them
    return report(thumbnet, pictures, labels, batch_sizes=(1, 4), repeats=2)


def test_counted_costs_are_those_of_the_definition(measured):
    """ResNet-20: convolutions by its table, a classifier of five classes, 614,400 in front."""
    teacher, student, both = measured.networks

    assert [cost.name for cost in measured.networks] == [
        "teacher", "student", "downscaler + student"]
    assert teacher.macs == 40_550_400 + 64 * 5 and student.macs == 10_137_600 + 64 * 5
    assert both.macs == student.macs + 614_400
    assert student.parameters == teacher.parameters
    assert both.parameters == student.parameters + 2_438
    assert teacher.peak_activations == 4 * student.peak_activations
    # The downscaler's first convolution reads the picture and writes 16 maps of half its size.
    assert both.peak_activations == max(student.peak_activations, 3 * 32**2 + 16 * 16**2)


def test_accuracies_are_those_of_each_way(measured, thumbnet, pictures):
    """The student alone sees what a file keeps."""
    labels = np.arange(6) % 5
    thumbnails = np.asarray(thumbnet.downscaler.predict(pictures, verbose=0))
    expected = [thumbnet.teacher.predict(pictures, verbose=0),
                thumbnet.student.predict(quantize(thumbnails), verbose=0),
                thumbnet.student.predict(thumbnails, verbose=0)]

    assert [cost.accuracy for cost in measured.networks] == pytest.approx(
        [float((np.argmax(logits, axis=1) == labels).mean()) for logits in expected])


def test_agreement_with_the_teacher_is_that_of_each_way(measured, thumbnet, pictures):
    labels = np.arange(6) % 5
    thumbnails = thumbnet.downscaler.predict(pictures, verbose=0)
    teacher, student, fed_directly = (network.predict(seen, verbose=0) for network, seen in (
        (thumbnet.teacher, pictures), (thumbnet.student, quantize(thumbnails)),
        (thumbnet.student, thumbnails)))

    stored, direct = (measured.agreement[name] for name in ("student", "downscaler + student"))

    for found, answers in ((stored, student), (direct, fed_directly)):
        expected = measure_agreement(teacher, answers, labels)
        assert found.equal_share == expected.equal_share
        assert found.mean_kl == pytest.approx(expected.mean_kl, rel=1e-3)
    counts = np.bincount(labels)
    lost = sum(loss * counts[label] for label, loss in stored.class_losses.items()) / 6
    accuracies = [cost.accuracy for cost in measured.networks]
    assert lost == pytest.approx(accuracies[0] - accuracies[1])


def test_times_are_there_for_each_batch_size_and_file(measured):
    for cost in measured.networks:
        assert list(cost.times) == [1, 4]
        for times in cost.times.values():
            assert 0 < times.low_ms <= times.median_ms <= times.high_ms
    names = [cost.name for cost in measured.decoding]
    assert names == ["full picture, JPEG 95", "full picture, PNG", "thumbnail, JPEG 95",
                     "thumbnail, PNG", "full picture, JPEG 95, decoded at 1/2"]
    sizes = [cost.bytes_per_picture for cost in measured.decoding]
    assert sizes[4] == sizes[0] > sizes[2]
    assert all(cost.times.median_ms > 0 for cost in measured.decoding)


def test_reduced_decoding_is_what_is_timed(pictures, monkeypatch):
    """At the ratio that its name says; the other files are decoded as they are."""
    ratios = []
    monkeypatch.setattr(thumbnet_report, "read_reduced", lambda file, ratio: ratios.append(ratio))

    costs = thumbnet_report._time_decoding(pictures, pictures[:, ::4, ::4], 4, 95, 1)

    assert costs[-1].name.endswith("decoded at 1/4")
    assert set(ratios) == {4} and len(ratios) % len(pictures) == 0


def test_the_table_says_how_many_times_less_than_the_teacher(measured):
    teacher, student = (NetworkCost(name, macs, 5, activations, None, {1: Times(ms, ms, ms)})
                        for name, macs, activations, ms in (
                            ("teacher", 40_000_000, 900, 6), ("student", 10_000_000, 300, 4)))

    table = dataclasses.replace(measured, networks=(teacher, student)).tables()[0]

    cells = [list(column.cells) for column in table.columns]
    assert [column[1] for column in cells] == [
        "student", "", "10.00 M (4.0)", "5", "300 (3.0)", "4.00 (1.5)"]


def test_honest_thumbnails_are_the_reference(measured):
    assert measured.thumbnails["area"].psnr is None
    assert measured.thumbnails["bicubic"].psnr > 15
    assert measured.thumbnails["downscaler"].moment_difference > 0


def test_it_can_be_printed_and_written(measured, tmp_path):
    """Tables name every candidate; the dict is JSON; the file has the same numbers."""
    console = Console(record=True, width=200)
    for table in measured.tables():
        console.print(table)
    text = console.export_text()
    assert all(part in text for part in ("downscaler + student", "decoded at 1/2", "bicubic", "dB",
                                         "nats", "(class "))

    json.dumps(measured.to_dict())
    measured.write_csv(tmp_path / "report.csv")
    with open(tmp_path / "report.csv", newline="", encoding="utf-8") as file:
        rows = {(row["part"], row["name"], row["quantity"]): row["value"]
                for row in csv.DictReader(file)}
    assert int(rows["networks", "teacher", "macs"]) == measured.networks[0].macs
    assert float(rows["networks", "student", "times.4.median_ms"]) > 0
    assert rows["machine", "backend", ""] == keras.backend.backend()
    assert float(rows["agreement", "student", "mean_kl"]) == measured.agreement["student"].mean_kl
    assert ("agreement", "student", "class_losses.4") in rows


def test_any_three_networks_will_do(pictures):
    """Without labels there are no accuracies; a downscaler of one's own is measured as well."""
    def network(size):
        inputs = keras.Input((size, size, 3))
        x = keras.layers.Conv2D(2, 3)(keras.layers.Rescaling(1 / 255)(inputs))
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))

    inputs = keras.Input((32, 32, 3))
    scaled = Downscaler(4, 12)(keras.layers.Rescaling(1 / 255)(inputs))
    downscaler = keras.Model(inputs, keras.layers.Rescaling(255.0)(scaled))

    student, teacher = network(8), network(32)

    measured = report(types.SimpleNamespace(
        downscaler=downscaler, student=student, teacher=teacher), pictures,
        batch_sizes=(2,), repeats=1)

    assert [cost.accuracy for cost in measured.networks] == [None] * 3
    # Of probabilities here: their divergence is that of the distributions, and there are no labels.
    p, q = (network.predict(seen, verbose=0).astype("float64") for network, seen in (
        (teacher, pictures), (student, downscaler.predict(pictures, verbose=0))))
    assert measured.agreement["downscaler + student"].mean_kl == pytest.approx(
        (p * np.log(p / q)).sum(axis=1).mean(), rel=0.02)
    assert measured.agreement["student"].class_losses == {}
    assert len(measured.tables()) == 4
    assert measured.decoding[-1].name.endswith("1/4")


@pytest.mark.parametrize("change, labels, message", [
    (lambda x: x.astype("float32"), None, "uint8 array"),
    (lambda x: x[:, ::2], None, "uint8 array"),
    (lambda x: x[:0], None, "uint8 array"),
    (lambda x: x, [1], "one whole number per picture"),
])
def test_wrong_arguments_are_named(thumbnet, pictures, change, labels, message):
    with pytest.raises(ValueError, match=message):
        report(thumbnet, change(pictures), labels)
