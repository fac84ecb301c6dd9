"""Figures of accuracy and cost: curves, and where pictures leave. They need matplotlib."""

import numpy as np

from keras_adaptive.plots import new_figure

_LINE, _DOTS = "#1f5fa8", "#d9822b"
_OTHERS = ("#2a7f3f", "#8e44ad", "#16a0a0", "#b8860b")  # further networks of the zoo
_MARKS = "osD^v"  # of another number than colours: networks of one colour have different marks
_PAPERS = ("#444444", "#999999", "#c46a6a", "#7a9a4a", "#b08ab8")
_STATIC = (("+", "#7a4fa3"), ("x", "#b07d2b"), ("*", "#c0392b"), ("P", "#2e86c1"),
           ("X", "#5d6d7e"), ("d", "#27704a"))  # marks and colours of the papers' static networks
_BARS = ("#a9c9e8", "#5a9bd4", "#1f5fa8", "#0d2f57", "#d9822b")


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
    figure = new_figure(7.2, 4.6)
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


def plot_curves(budgeted, exits, published=(), others=None, title=None, name=None):
    """Plot accuracy against multiply-adds, beside published results and other networks.

    Args:
        budgeted: list of `BudgetedPoint`; the line, where there are two exits or more.
        exits: list of `OperatingPoint`, where all pictures stop at the same exit; the dots.
        published: list of `PublishedPoint`. Budgeted ones become a line per network, anytime ones
            open marks, static networks marks without a line.
        others: dict of lists of `BudgetedPoint` by the name of a network, or `None`.
        title: string or `None`.
        name: string or `None`. This network's name: its place in the order of names stays free, so
            that the others look the same in the figure of each of them.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = new_figure(9.6, 5.2)
    axes = figure.add_axes((0.075, 0.115, 0.6, 0.8))
    static = list(dict.fromkeys(point.network for point in published if point.is_static))
    for number, network in enumerate(static):
        mark, color = _STATIC[number % len(_STATIC)]
        _draw(axes, [p for p in published if p.network == network], f"{network} (paper)",
              color=color, marker=mark, linestyle="", markersize=7)
    networks = list(dict.fromkeys((point.network, point.protocol) for point in published
                                  if not point.is_static))
    # A network has one colour, also where its names differ: "RANet", "RANet C-3".
    families = list(dict.fromkeys(network.split()[0] for network, _ in networks))
    for network, protocol in networks:
        points = [p for p in published if (p.network, p.protocol) == (network, protocol)]
        family = families.index(network.split()[0])
        look = ({"linestyle": "-", "marker": "."} if protocol == "budgeted" else
                {"linestyle": ":", "marker": "os^Dv"[family % 5], "markerfacecolor": "white"})
        kind = "budgeted" if protocol == "budgeted" else "each exit"
        _draw(axes, points, f"{network}, {kind} (paper)", color=_PAPERS[family % len(_PAPERS)],
              linewidth=1.2, markersize=5, **look)
    names = sorted({*(others or {}), *([name] if name else [])})
    for other, points in (others or {}).items():
        number, is_static = names.index(other), len(points[0].exit_shares) == 1
        _draw(axes, points, other if is_static else f"{other}, budgeted",
              color=_OTHERS[number % len(_OTHERS)], marker=_MARKS[number % len(_MARKS)],
              **({"linestyle": "", "markersize": 7} if is_static else
                 {"linewidth": 1.5, "markersize": 3.5}))
    _draw(axes, exits, "this network, each exit", color=_DOTS, marker="o", linestyle="",
          markersize=7)
    if len(exits) > 1:
        _draw(axes, budgeted, "this network, budgeted", color=_LINE, linewidth=2.4)
    axes.set_xlabel("mean multiply-adds per picture (millions)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title or "", loc="left")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # Beside the axes, where it covers no point; our own, drawn last, are named first.
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1.0),
                frameon=False, fontsize=9, labelspacing=0.8)
    return figure


def plot_equal_schedule(points, title=None):
    """Plot accuracy against multiply-adds of networks that learned equally long.

    Lines are budgeted, open marks exits where all pictures stop.

    Args:
        points: list of `EqualSchedulePoint`.
        title: string or `None`.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = new_figure(7.2, 4.6)
    axes = figure.add_axes((0.11, 0.13, 0.85, 0.77))
    colors = (_LINE, _DOTS, *_OTHERS)
    for number, network in enumerate(dict.fromkeys(point.network for point in points)):
        color, mark = colors[number % len(colors)], _MARKS[number % len(_MARKS)]
        for protocol, name, look in (
                ("budgeted", "within a budget", {"linewidth": 2.4}),
                ("anytime", "each exit", {"linestyle": ":", "marker": mark,
                                          "markerfacecolor": "white"})):
            _draw(axes, [p for p in points if (p.network, p.protocol) == (network, protocol)],
                  f"{network}, {name}", color=color, **look)
    axes.set_xlabel("mean multiply-adds per picture (millions)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title or "", loc="left")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw(axes, points, label, **look):
    points = sorted(points, key=lambda point: point.mean_macs)
    axes.plot([p.mean_macs / 1e6 for p in points], [100 * p.accuracy for p in points],
              label=label, **look)


def plot_exit_histogram(shares, exit_macs, title=None):
    """Plot the share of pictures that leave at each exit, side by side for several settings.

    Args:
        shares: dict of sequences, one share per exit, by the name that the legend shows.
        exit_macs: sequence of numbers, the multiply-adds up to each exit.
        title: string or `None`.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: If there are no settings, or one has not a share per exit.
    """
    wrong = {name: len(values) for name, values in shares.items() if len(values) != len(exit_macs)}
    if wrong or not shares:
        raise ValueError(
            f"`shares` holds sequences of {len(exit_macs)} numbers, one per exit. "
            f"Received: {wrong or 'nothing'}."
        )
    num_exits = len(exit_macs)
    figure = new_figure(max(6.4, 1.15 * num_exits + 1.2), 4.2)
    axes = figure.add_axes((0.1, 0.17, 0.87, 0.72))
    bar = 0.82 / len(shares)
    for number, (name, values) in enumerate(shares.items()):
        left = np.arange(1, num_exits + 1) + (number - (len(shares) - 1) / 2) * bar
        axes.bar(left, [100 * value for value in values], 0.92 * bar, label=name,
                 color=_BARS[number % len(_BARS)])
    axes.set_xticks(range(1, num_exits + 1),
                    [f"exit {number}\n{macs / 1e6:.3g} M" for number, macs
                     in enumerate(exit_macs, start=1)])
    axes.set_xlabel("exit, and multiply-adds up to it")
    axes.set_ylabel("pictures that leave there (%)")
    axes.set_title(title or "", loc="left", wrap=True)  # with two exits the figure is narrow
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
