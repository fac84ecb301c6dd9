"""What a ThumbNet costs and what it saves: teacher, student, and downscaler with student."""

import csv
import dataclasses
import io
import pathlib

import keras
import numpy as np
from PIL import Image

from keras_adaptive.agreement import Agreement, measure_agreement
from keras_adaptive.evaluation.tables import in_millions
from keras_adaptive.files import write_whole
from keras_adaptive.graph import exit_macs, exit_parameters, peak_activations
from keras_adaptive.graph.logits import exits_give_logits
from keras_adaptive.labels import read_labels
from keras_adaptive.shrinking import read_reduced, shrink, thumbnail_ratio
from keras_adaptive.thumbnail_quality import ThumbnailQuality, average, measure_thumbnails
from keras_adaptive.thumbnails import encode, quantize
from keras_adaptive.timing import compile_whole, describe_machine, in_batches, time_in_turns

MAX_DECODED = 32  # pictures of a timed round of decoding
_PREDICT_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Times:
    """Milliseconds of timed rounds: median, and the quartiles around it."""

    median_ms: float
    low_ms: float
    high_ms: float

    @classmethod
    def of(cls, samples, divisor=1):
        """Sum up a list of milliseconds, each divided by `divisor`."""
        low, median, high = (float(value) / divisor
                             for value in np.percentile(samples, (25, 50, 75)))
        return cls(median, low, high)


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """One network, or two in a row.

    Attributes:
        name: string.
        macs: int. Multiply-adds of a picture.
        parameters: int. Trainable ones, frozen or not.
        peak_activations: int, see `keras_adaptive.graph.peak_activations`.
        accuracy: float, or None without labels.
        times: dict of batch size to `Times` of a batch.
    """

    name: str
    macs: int
    parameters: int
    peak_activations: int
    accuracy: float | None
    times: dict


@dataclasses.dataclass(frozen=True)
class DecodeCost:
    """One way to get from a file's bytes to pixels: mean size of a file, `Times` of a picture."""

    name: str
    bytes_per_picture: float
    times: Times


@dataclasses.dataclass(frozen=True)
class ThumbNetReport:
    """What `report` measured.

    Attributes:
        networks: tuple of `NetworkCost`: `teacher`, `student` (of stored thumbnails) and
            `downscaler + student`.
        decoding: tuple of `DecodeCost`.
        thumbnails: dict of way to `ThumbnailQuality`: `area`, `bicubic`, `downscaler`.
        agreement: dict of network to `Agreement` with the teacher: `student`,
            `downscaler + student`.
        num_pictures: int.
        engine: string, what the networks ran on.
        machine: dict, see `describe_machine`.
    """

    networks: tuple
    decoding: tuple
    thumbnails: dict[str, ThumbnailQuality]
    agreement: dict[str, Agreement]
    num_pictures: int
    engine: str
    machine: dict

    def tables(self):
        """Return four `rich.table.Table`: networks, agreement, decoding, thumbnails."""
        return [self._networks_table(), self._agreement_table(), self._decoding_table(),
                self._thumbnails_table()]

    def _networks_table(self):
        teacher = self.networks[0]
        sizes = list(teacher.times)

        def less(value, of_teacher):
            return f"({of_teacher / value:.1f})"

        table = _table(
            f"Networks on {self.engine}; in brackets: how many times less than the teacher",
            ["network", "accuracy", "multiply-adds", "parameters", "peak activations",
             *(f"ms, batch of {size}" for size in sizes)])
        for cost in self.networks:
            table.add_row(
                cost.name, "" if cost.accuracy is None else f"{cost.accuracy:.2%}",
                f"{in_millions(cost.macs)} {less(cost.macs, teacher.macs)}",
                f"{cost.parameters:,}",
                f"{cost.peak_activations:,} "
                f"{less(cost.peak_activations, teacher.peak_activations)}",
                *(f"{cost.times[size].median_ms:.2f} "
                  f"{less(cost.times[size].median_ms, teacher.times[size].median_ms)}"
                  for size in sizes))
        return table

    def _agreement_table(self):
        table = _table(f"Answers to {self.num_pictures} pictures, against the teacher's",
                       ["network", "equal", "divergence", "most lost", "least lost"])
        for name, agreement in self.agreement.items():
            losses = sorted((loss, label) for label, loss in agreement.class_losses.items())
            table.add_row(
                name, f"{agreement.equal_share:.2%}", f"{agreement.mean_kl:.3f} nats",
                *(f"{loss:+.1%} (class {label})" for loss, label in (losses[-1:] + losses[:1])))
        return table

    def _decoding_table(self):
        table = _table("From a file's bytes to pixels, one picture",
                       ["file", "bytes", "ms", "quartiles"])
        for cost in self.decoding:
            table.add_row(cost.name, f"{cost.bytes_per_picture:,.0f}",
                          f"{cost.times.median_ms:.3f}",
                          f"{cost.times.low_ms:.3f} to {cost.times.high_ms:.3f}")
        return table

    def _thumbnails_table(self):
        table = _table(
            f"Thumbnails of {self.num_pictures} pictures, against averaged pixels",
            ["thumbnails", "moment difference", "PSNR", "clipped values", "colour cast"])
        for name, quality in self.thumbnails.items():
            table.add_row(name, f"{quality.moment_difference:.2e}",
                          "equal" if quality.psnr is None else f"{quality.psnr:.1f} dB",
                          f"{quality.clipped_share:.1%}", f"{quality.colour_cast:.2f}")
        return table

    def to_dict(self):
        """Return all that was measured, as dicts, lists, numbers and strings."""
        return dataclasses.asdict(self)

    def write_csv(self, path):
        """Write a row per number: part, name, quantity, value; the machine is a part, too.

        The file's folder is made if missing.
        """
        parts = {"networks": {cost.name: cost for cost in self.networks},
                 "decoding": {cost.name: cost for cost in self.decoding},
                 "agreement": self.agreement,
                 "thumbnails": self.thumbnails}
        rows = [(part, name, quantity, value) for part, members in parts.items()
                for name, member in members.items()
                for quantity, value in _numbers(dataclasses.asdict(member))]
        rows += [("machine", name, "", value) for name, value in self.machine.items()]

        def fill(partial):
            with open(partial, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["part", "name", "quantity", "value"])
                writer.writerows(rows)

        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, fill)


def report(thumbnet, pictures, labels=None, *, batch_sizes=(1, 32), repeats=20, engine="keras",
           quality=95):
    """Measure a ThumbNet: accuracy, agreement, cost, time, decoding of files, thumbnails.

    The candidates of a comparison take turns; let nothing else run meanwhile. The student alone
    gets thumbnails as a file keeps them, clipped and rounded. Files are made of the pictures in
    memory, so that reading from a disk is not in the times of decoding.

    Args:
        thumbnet: has the Functional models `downscaler` (pictures 0 to 255 to thumbnails 0 to 255),
            `student` and `teacher` (to logits or probabilities), as `ThumbNet` does.
        pictures: uint8 array `(n, height, width, 3)`, of the teacher's size.
        labels: int array `(n,)` or `(n, 1)`, or None: no accuracies, and no losses by class.
        batch_sizes: sequence of ints. Pictures that are classified together in timed calls.
        repeats: int. Timed rounds.
        engine: string, as in `compile_whole`.
        quality: int. Of the JPEG files whose decoding is timed.

    Returns:
        `ThumbNetReport`.

    Raises:
        ValueError: If pictures and labels are not of these shapes, or do not fit the networks.
    """
    pictures = _check_pictures(pictures, thumbnet.teacher)
    if labels is not None:
        labels = read_labels(labels, "`labels`", len(pictures))
    networks = {"teacher": _copy_of_graph(thumbnet.teacher),
                "student": _copy_of_graph(thumbnet.student),
                "downscaler + student": _in_a_row(thumbnet.downscaler, thumbnet.student)}
    thumbnails = np.asarray(
        thumbnet.downscaler.predict(pictures, batch_size=_PREDICT_BATCH, verbose=0))
    ratio, stored = thumbnail_ratio(pictures, thumbnails), quantize(thumbnails)
    inputs = {name: stored if name == "student" else pictures for name in networks}
    programs = {name: compile_whole(network, engine) for name, network in networks.items()}
    times = {size: _time_networks(programs, inputs, size, repeats) for size in batch_sizes}
    logits = {name: _logits(network, programs[name], inputs[name])
              for name, network in networks.items()}
    costs = tuple(
        NetworkCost(
            name, exit_macs(network)[-1], exit_parameters(network)[-1], peak_activations(network),
            _accuracy(logits[name], labels),
            {size: times[size][name] for size in batch_sizes})
        for name, network in networks.items())
    return ThumbNetReport(
        costs, _time_decoding(pictures[:MAX_DECODED], stored[:MAX_DECODED], ratio, quality,
                              repeats),
        {"area": measure_thumbnails(pictures, average(pictures, ratio)),
         "bicubic": measure_thumbnails(
             pictures, np.stack([shrink(picture, ratio, "bicubic") for picture in pictures])),
         "downscaler": measure_thumbnails(pictures, thumbnails)},
        {name: measure_agreement(logits["teacher"], logits[name], labels)
         for name in networks if name != "teacher"},
        len(pictures), engine, describe_machine())


def _check_pictures(pictures, teacher):
    pictures, size = np.asarray(pictures), tuple(teacher.inputs[0].shape[1:])
    if pictures.ndim != 4 or pictures.dtype != np.uint8 or not len(pictures) or any(
            a != b for a, b in zip(pictures.shape[1:], size) if b is not None):
        raise ValueError(
            f"`pictures` are a uint8 array (n, height, width, channels) of the teacher's size "
            f"{size}. Received: {pictures.dtype} of shape {pictures.shape}."
        )
    return pictures


def _copy_of_graph(model):
    """Return a model of the same layers: calls leave traces on it, not on the one given."""
    return keras.Model(model.inputs[0], model.outputs[-1], name=model.name)


def _in_a_row(downscaler, student):
    pictures = keras.Input(downscaler.inputs[0].shape[1:], dtype=downscaler.inputs[0].dtype)
    thumbnails = _copy_of_graph(downscaler)(pictures)
    return keras.Model(pictures, _copy_of_graph(student)(thumbnails))


def _time_networks(programs, inputs, size, repeats):
    """Return `Times` of a batch of `size` pictures by the programs' names."""
    batches = {name: np.resize(inputs[name], (size, *inputs[name].shape[1:])) for name in programs}
    samples = time_in_turns(
        {name: lambda run=run, batch=batches[name]: run(batch) for name, run in programs.items()},
        repeats)
    return {name: Times.of(values) for name, values in samples.items()}


def _logits(network, program, inputs):
    """Return what a network answers, as logits or logarithms of probabilities."""
    answers = in_batches(program, inputs, _PREDICT_BATCH)
    if exits_give_logits(network)[-1]:
        return answers
    return np.log(np.maximum(answers, np.finfo("float32").tiny))


def _accuracy(logits, labels):
    if labels is None:
        return None
    return float((logits.argmax(axis=1) == labels).mean())


def _time_decoding(pictures, thumbnails, ratio, quality, repeats):
    jpeg = f"JPEG {quality}"
    files = {
        f"full picture, {jpeg}": [encode(picture, "jpeg", quality) for picture in pictures],
        "full picture, PNG": [encode(picture, "png") for picture in pictures],
        f"thumbnail, {jpeg}": [encode(picture, "jpeg", quality) for picture in thumbnails],
        "thumbnail, PNG": [encode(picture, "png") for picture in thumbnails],
    }
    decoders = dict.fromkeys(files, _decode)
    reduced = f"full picture, {jpeg}, decoded at 1/{ratio}"
    files[reduced] = files[f"full picture, {jpeg}"]
    decoders[reduced] = lambda file: read_reduced(file, ratio)
    samples = time_in_turns(
        {name: lambda name=name: [decoders[name](io.BytesIO(content)) for content in files[name]]
         for name in files}, repeats)
    return tuple(
        DecodeCost(name, float(np.mean([len(content) for content in files[name]])),
                   Times.of(values, len(pictures)))
        for name, values in samples.items())


def _decode(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


def _table(title, headings):
    from rich.table import Table

    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    return table


def _numbers(record, prefix=""):
    """Give the numbers of nested dicts with the keys on the way to each, joined by dots."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif value is not None and not isinstance(value, str):
            yield f"{prefix}{key}", value
