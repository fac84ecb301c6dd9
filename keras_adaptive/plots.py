"""Figures: who left at which exit, and accuracy against cost. They need matplotlib."""

import pathlib

import numpy as np

from keras_adaptive.files import write_whole

_RIGHT, _WRONG, _PLAIN = "#2a7f3f", "#c0392b", "#555555"
_LINE, _DOTS, _BAR = "#1f5fa8", "#d9822b", "#e3e3e3"

# Sizes of the grid of pictures, in inches.
_PICTURE, _GAP, _CAPTION, _MARGIN, _NAMES, _TITLE = 1.15, 0.2, 0.48, 0.2, 1.75, 0.62
_MIN_COLUMNS = 4  # room for the title


def plot_pictures(pictures, prediction, true_labels=None, title=None, max_columns=8):
    """Show pictures in rows by the exit that answered, the cheapest first.

    Within an exit the surest comes first. Every picture carries its label and confidence; with
    `true_labels`, right ones have a green frame, wrong ones a red one and the true class.

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
    figure = _new_figure(width, height)
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
    if truth is None:
        color, remark = _PLAIN, ""
    elif truth == label:
        color, remark = _RIGHT, "right"
    else:
        color, remark = _WRONG, f"wrong: {truth}"
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=3)
    below = {"transform": axes.transAxes, "ha": "center", "va": "top", "color": color}
    axes.text(0.5, -0.05, f"{label} {_percent(answer.confidence)}", fontsize=9.5, **below)
    axes.text(0.5, -0.18, remark, fontsize=8.5, **below)


def _percent(share):
    # Nobody is certain: 99.96 % does not become 100 %.
    return ">99.9%" if share > 0.999 else f"{share:.1%}"


def plot_accuracy(points, title=None):
    """Plot accuracy against mean multiply-adds.

    Dots are exits where all pictures stop; the line is what confidence thresholds give.

    Args:
        points: list of `OperatingPoint`, with at least one exit.
        title: string or None.

    Returns:
        `matplotlib.figure.Figure`.
    """
    exits = [point for point in points if point.exit is not None]
    adaptive = sorted((p for p in points if p.threshold is not None), key=lambda p: p.mean_macs)
    figure = _new_figure(7.2, 4.6)
    axes = figure.add_axes((0.11, 0.13, 0.85, 0.77))
    axes.plot([p.mean_macs / 1e6 for p in exits], [100 * p.accuracy for p in exits], "o--",
              color=_DOTS, markersize=7, linewidth=1, label="all pictures stop at the same exit")
    for point in exits:
        _annotate(axes, point, f"exit {point.exit}", (4, -13), "left", _DOTS)
    if adaptive:
        axes.plot([p.mean_macs / 1e6 for p in adaptive], [100 * p.accuracy for p in adaptive],
                  "s-", color=_LINE, markersize=5,
                  label="each stops when it is sure (confidence threshold)")
        for point in _with_room(adaptive, points):
            _annotate(axes, point, f"{point.threshold:g}", (-6, 3), "right", _LINE)
    axes.set_xlabel("mean multiply-adds per picture (millions)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title or "")
    axes.margins(x=0.09, y=0.13)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _annotate(axes, point, text, offset, ha, color):
    axes.annotate(text, (point.mean_macs / 1e6, 100 * point.accuracy), offset, ha=ha,
                  textcoords="offset points", fontsize=8.5, color=color)


def _with_room(points, all_points):
    """Return the points whose labels do not run into that of the one before."""
    width = np.ptp([point.mean_macs for point in all_points]) or 1
    height = np.ptp([point.accuracy for point in all_points]) or 1
    chosen = []
    for point in points:
        if (not chosen or point.mean_macs - chosen[-1].mean_macs > 0.04 * width
                or abs(point.accuracy - chosen[-1].accuracy) > 0.06 * height):
            chosen.append(point)
    return chosen


def save_figure(figure, path, dpi=120):
    """Write a figure as PNG, or in the format that the ending of `path` names.

    Args:
        figure: `matplotlib.figure.Figure`.
        path: path of the file. Its folder is made if missing.
        dpi: int. Dots per inch.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: figure.savefig(partial, dpi=dpi, facecolor="white"))


def _new_figure(width, height):
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Figures need the `matplotlib` package: `pip install keras_adaptive[plot]`."
        ) from error
    return Figure(figsize=(width, height))
