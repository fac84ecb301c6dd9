"""Figures of pictures: who left at which exit, easy and hard ones. They need matplotlib."""

import pathlib

import numpy as np
from PIL import Image

from keras_adaptive.files import check_is_no_folder, write_whole
from keras_adaptive.shrinking import shrink, thumbnail_ratio

_RIGHT, _WRONG, _PLAIN = "#2a7f3f", "#c0392b", "#555555"
_LINE, _BAR = "#1f5fa8", "#e3e3e3"

# Sizes of the grid of pictures, in inches.
_PICTURE, _GAP, _CAPTION, _MARGIN, _NAMES, _TITLE = 1.15, 0.2, 0.64, 0.2, 1.75, 0.62
_MIN_COLUMNS = 4  # room for the title


def plot_pictures(pictures, prediction, true_labels=None, title=None, max_columns=8):
    """Show pictures in rows by the exit that answered, the cheapest first.

    Within an exit the surest comes first. Every picture carries its label and confidence; with
    `true_labels`, right ones have a green frame, wrong ones a red one and the true class. Of names
    that are wider than their column the end is left out.

    Args:
        pictures: sequence of uint8 arrays `(height, width, 3)`, in the order of `prediction`.
        prediction: `Prediction` with at least one picture.
        true_labels: sequence of class names, or None where they are not known.
        title: string, or None for a sentence on the mean cost.
        max_columns: int. Most pictures in a row.

    Returns:
        `matplotlib.figure.Figure`; see `save_figure`.
    """
    if len(pictures) != len(prediction) or not len(prediction):
        raise ValueError(
            "`plot_pictures` takes one picture or more, as many as answers. "
            f"Received {len(pictures)} pictures and {len(prediction)} answers."
        )
    rows = _rows(prediction, max_columns)
    columns = max(len(positions) for _, positions in rows)
    width = 2 * _MARGIN + _NAMES + max(columns, _MIN_COLUMNS) * (_PICTURE + _GAP)
    height = _TITLE + len(rows) * (_PICTURE + _CAPTION) + _MARGIN
    figure = new_figure(width, height)
    figure.text(_MARGIN / width, 1 - 0.3 / height, title or _title(prediction), fontsize=13,
                weight="bold", va="center")
    for row, (is_first, positions) in enumerate(rows):
        top = _TITLE + row * (_PICTURE + _CAPTION)
        if is_first:
            _name_exit(figure, prediction[positions[0]], top, (width, height))
        for column, position in enumerate(positions):
            left = _MARGIN + _NAMES + column * (_PICTURE + _GAP)
            axes = figure.add_axes((left / width, 1 - (top + _PICTURE) / height,
                                    _PICTURE / width, _PICTURE / height))
            truth = None if true_labels is None else true_labels[position]
            _draw_picture(axes, pictures[position], prediction[position], truth)
    return figure


def _rows(prediction, max_columns):
    """Return `(is_first, positions)` per row; `is_first` where another exit begins."""
    rows = []
    for number in sorted(set(prediction.exits.tolist())):
        members = np.flatnonzero(prediction.exits == number)
        members = members[np.argsort(-prediction.confidences[members], kind="stable")]
        for start in range(0, len(members), max_columns):
            rows.append((start == 0, members[start:start + max_columns].tolist()))
    return rows


def _title(prediction):
    summary = prediction.summary()
    return (f"{summary.num_pictures} picture{'s' if summary.num_pictures > 1 else ''} for "
            f"{summary.mean_cost_share:.0%} of the work of the whole network")


def _name_exit(figure, answer, top, size):
    """Write, left of a row, the exit and what it costs, with a bar."""
    width, height = size
    figure.text(_MARGIN / width, 1 - (top + 0.35) / height, f"Exit {answer.exit}", fontsize=13,
                weight="bold", va="center")
    figure.text(_MARGIN / width, 1 - (top + 0.62) / height,
                f"{answer.cost_share:.0%} of the full cost", fontsize=10, va="center")
    bar = figure.add_axes((_MARGIN / width, 1 - (top + 0.88) / height,
                           (_NAMES - 0.35) / width, 0.1 / height))
    bar.barh(0, 1, color=_BAR)
    bar.barh(0, answer.cost_share, color=_LINE)
    bar.set(xlim=(0, 1), ylim=(-0.4, 0.4))
    bar.axis("off")


def _draw_picture(axes, picture, answer, truth):
    label = answer.label or f"class {answer.class_id}"
    confidence = _percent(answer.confidence)
    if truth is None:
        color, remarks = _PLAIN, [confidence]
    elif truth == label:
        color, remarks = _RIGHT, [f"{confidence}, right"]
    else:
        color, remarks = _WRONG, [f"{confidence}, wrong:", truth]
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=3)
    for line, (text, size) in enumerate([(label, 9), *((remark, 8.5) for remark in remarks)]):
        axes.text(0.5, -0.05 - 0.13 * line, _shortened(text, _PICTURE + _GAP / 2, size),
                  fontsize=size, color=color, ha="center", va="top", transform=axes.transAxes)


def _shortened(text, inches, size):
    """Return as much of a text as a line has room for, with an ellipsis where the end is missing.

    Args:
        text: string.
        inches: float. The room.
        size: float. Points of the font.
    """
    if _width(text, size) <= inches:
        return text
    shorter = (f"{text[:end].rstrip()}…" for end in range(len(text) - 1, 0, -1))
    return next((part for part in shorter if _width(part, size) <= inches), "…")


def _wrapped(text, inches, size):
    """Return a text in lines of whole words, as far as the room allows; see `_shortened`."""
    lines = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}", size) <= inches:
            lines[-1] += f" {word}"
        else:
            lines.append(_shortened(word, inches, size))
    return "\n".join(lines)


def _width(text, size):
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=size).get_extents().x1 / 72


def _percent(share):
    # Nobody is certain: 99.96 % does not become 100 %.
    return ">99.9%" if share > 0.999 else f"{share:.1%}"


def plot_gallery(pictures, outputs, thresholds, class_names=None, *, columns=5, max_classes=10):
    """Show easy pictures beside hard ones, a row per class.

    Easy ones left at the first exit and were right; the surest are shown. Hard ones went on to the
    last exit and were right there only; of them too those where that exit is surest.

    Args:
        pictures: sequence of uint8 arrays `(height, width, 3)`, in the order of `outputs`.
        outputs: `ExitOutputs` of the pictures, of two exits or more.
        thresholds: float, or sequence with one float per exit, by which pictures leave.
        class_names: sequence of strings, or `None` for numbers.
        columns: int. Most easy and most hard pictures of a class.
        max_classes: int. Most rows; where there are more classes, those with most of both kinds.

    Returns:
        `matplotlib.figure.Figure`. Places stay empty where a class has too few pictures.

    Raises:
        ValueError: If there are not as many pictures as answers, or there is a single exit.

    Reference:
        Figure 7 of [Yang et al., 2020](https://arxiv.org/abs/2003.07326), which shows pictures of
        ImageNet this way.
    """
    if len(pictures) != len(outputs.labels) or outputs.num_exits < 2:
        raise ValueError(
            "`plot_gallery` takes one picture per answer, of two exits or more. Received "
            f"{len(pictures)} pictures, {len(outputs.labels)} answers, {outputs.num_exits} exits."
        )
    members = _easy_and_hard(outputs, thresholds)
    rows = _richest_classes(outputs, members, max_classes)
    # Sizes in inches, such that pictures of 32 pixels take whole pixels at 100 dots an inch.
    side, gap, names, middle, top = 0.64, 0.06, 1.2, 0.4, 0.72
    part = columns * (side + gap)
    width, height = names + 2 * part + middle + _MARGIN, top + len(rows) * (side + gap) + _MARGIN
    figure = new_figure(width, height)
    # The third element says with which exit's confidence the pictures are sorted.
    kinds = [("easy", "left at the first exit, and right", 0),
             ("hard", f"went on to exit {outputs.num_exits}, and right only there", -1)]
    for (title, remark, exit), left, is_member in zip(kinds, (names, names + part + middle),
                                                      members):
        figure.text(left / width, 1 - 0.3 / height, title, fontsize=13, weight="bold", va="center")
        figure.text(left / width, 1 - 0.52 / height, remark, fontsize=9.5, color=_PLAIN,
                    va="center")
        for row, class_id in enumerate(rows):
            chosen = np.flatnonzero(is_member & (outputs.labels == class_id))
            chosen = chosen[np.argsort(-outputs.confidences[exit, chosen], kind="stable")]
            for column, position in enumerate(chosen[:columns]):
                x, y = left + column * (side + gap), top + row * (side + gap)
                axes = figure.add_axes((x / width, 1 - (y + side) / height,
                                        side / width, side / height))
                axes.imshow(pictures[position], interpolation="nearest")
                axes.axis("off")
    for row, class_id in enumerate(rows):
        y = top + row * (side + gap) + side / 2
        name = f"class {class_id}" if class_names is None else class_names[class_id]
        figure.text((names - 0.12) / width, 1 - y / height, _wrapped(name, names - 0.17, 10),
                    fontsize=10, ha="right", va="center")
    return figure


def _richest_classes(outputs, members, number):
    """Return the classes with most pictures of the rarer kind, then of both, in their order."""
    num_classes = outputs.probabilities.shape[2]
    counts = np.stack([np.bincount(outputs.labels[is_member], minlength=num_classes)
                       for is_member in members])
    best = np.lexsort((-counts.sum(axis=0), -counts.min(axis=0)))
    return np.sort(best[:number])


def _easy_and_hard(outputs, thresholds):
    """Return which pictures the first exit settles, and which only the last one gets right."""
    exits, right = outputs.simulate(thresholds).exits, outputs.is_right
    return ((exits == 1) & right[0],
            (exits == outputs.num_exits) & right[-1] & ~right[:-1].any(axis=0))


def plot_thumbnails(pictures, thumbnails, title=None):
    """Show pictures beside their thumbnails: antialiased bicubic ones, and learned ones.

    All are shown at one size, their pixels as squares.

    Args:
        pictures: uint8 array `(n, height, width, 3)`.
        thumbnails: uint8 array `(n, height / ratio, width / ratio, 3)`, what a downscaler made of
            them; see `thumbnails.quantize`.
        title: string or None.

    Returns:
        `matplotlib.figure.Figure`; see `save_figure`.

    Raises:
        ValueError: If there is no picture, not one thumbnail a picture, or their sides differ by no
            whole ratio of 2 or more.
    """
    pictures, thumbnails = np.asarray(pictures), np.asarray(thumbnails)
    ratio = thumbnail_ratio(pictures, thumbnails)
    columns = {"original": pictures,
               "bicubic, antialiased": [shrink(picture, ratio, "bicubic") for picture in pictures],
               "learned": thumbnails}
    side, gap, top = 1.6, 0.1, 0.8
    width = 2 * _MARGIN + 3 * side + 2 * gap
    height = top + len(pictures) * (side + gap) + _MARGIN
    figure = new_figure(width, height)
    figure.text(_MARGIN / width, 1 - 0.3 / height, title or f"1/{ratio} of each side", fontsize=13,
                weight="bold", va="center")
    for column, (name, shown) in enumerate(columns.items()):
        left = _MARGIN + column * (side + gap)
        figure.text((left + side / 2) / width, 1 - 0.62 / height, name, fontsize=10, ha="center",
                    va="center")
        for row, picture in enumerate(shown):
            y = top + row * (side + gap) + side
            axes = figure.add_axes((left / width, 1 - y / height, side / width, side / height))
            axes.imshow(picture, interpolation="nearest")
            axes.axis("off")
    return figure


def check_figure_path(path):
    """Raise before long work what `save_figure` would raise after it.

    Args:
        path: path of a file to be.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If it cannot write the format that the ending names, or `path` is a folder.
    """
    check_is_no_folder(path)
    known = sorted(new_figure(1, 1).canvas.get_supported_filetypes())
    ending = pathlib.Path(path).suffix.removeprefix(".").lower()
    if ending and ending not in known:
        raise ValueError(f"Figures are written as {', '.join(known)}. Received: {str(path)!r}.")


def save_figure(figure, path, dpi=120, num_colors=None):
    """Write a figure as PNG, or in the format that the ending of `path` names.

    Args:
        figure: `matplotlib.figure.Figure`.
        path: path of the file. Its folder is made if missing.
        dpi: int. Dots per inch.
        num_colors: int up to 256, or `None` for all. Fewer make a figure of many photographs small.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def fill(partial):
        # Named, as to a path without an ending matplotlib would add one.
        figure.savefig(partial, dpi=dpi, facecolor="white", format=path.suffix[1:] or "png")
        if num_colors is not None:
            with Image.open(partial) as image:
                fewer = image.convert("RGB").quantize(num_colors)
            fewer.save(partial, format=None if path.suffix else "png")

    write_whole(path, fill)


def new_figure(width, height):
    """Return an empty `matplotlib.figure.Figure`, its size in inches.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Figures need the `matplotlib` package: `pip install keras_adaptive[plot]`."
        ) from error
    return Figure(figsize=(width, height))
