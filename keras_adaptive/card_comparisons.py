"""The sections of a card in which a network stands beside others."""

import numpy as np

from keras_adaptive.evaluation.tables import in_millions
from keras_adaptive.markdown import some, table


def beside_papers(entry, published, exits, budgeted):
    """Return the section on the papers' figures; empty where there are none.

    Args:
        entry: `Entry`.
        published: list of `PublishedPoint` of the entry's data set.
        exits: list of `OperatingPoint`, where all pictures stop at the same exit.
        budgeted: list of `BudgetedPoint`; empty for a network of one exit.
    """
    if not published:
        return ""
    published = [point for point in published if point.is_adaptive]
    parts = ["## Beside the papers' figures",
             "Accuracy at the same cost. The papers' values lie on straight lines between the "
             "points of `zoo/published_results.csv`; `-`: outside of their range. Their "
             "multiply-adds are partly counted otherwise than ours, partly read off a figure; "
             "see the sources."]
    protocols = [("anytime", exits, "All pictures stop at the same exit:")]
    if budgeted:
        protocols.insert(0, ("budgeted", budgeted, "Each picture leaves where it is sure enough:"))
    for protocol, ours, first in protocols:
        points = [point for point in published if point.protocol == protocol]
        # The same network first, then the other paper's.
        names = sorted(dict.fromkeys(point.network for point in points),
                       key=lambda name: not name.startswith(entry.builder))
        lines = {name: _line(points, name) for name in names}
        rows = [(in_millions(p.mean_macs), f"{p.accuracy:.2%}",
                 *(text for line in lines.values() for text in _difference(p, line)))
                for p in ours]
        headings = [h for name in names for h in (f"{name} (paper)", "difference")]
        parts += [first, table(("multiply-adds", entry.name, *headings), rows),
                  *(_sentence(name, lines[name], ours) for name in names[:1])]
    sources = dict.fromkeys(point.source for point in published)
    parts.append("Sources:\n\n" + "\n".join(f"- {source}" for source in sources))
    return "\n\n".join(parts)


def at_equal_schedule(points, figure, entry_epochs=None):
    """Return the section on networks that were trained equally long.

    Args:
        points: list of `EqualSchedulePoint`; the first network is the entry's kind.
        figure: list of strings, the figure in Markdown where there is one.
        entry_epochs: int or `None`. Epochs of the entry's own weights.
    """
    epochs = points[0].epochs
    whose = ("those of this entry, before they were rounded for its file" if epochs == entry_epochs
             else "weights of that length, not those of this entry")
    names = list(dict.fromkeys(point.network for point in points))
    recipes = {point.network: point.recipe for point in points}
    budgeted = [point for point in points if point.protocol == "budgeted"]
    lines = {name: _line(budgeted, name) for name in names[1:]}
    rows = [(in_millions(p.mean_macs), f"{p.accuracy:.2%}",
             *(text for line in lines.values() for text in _difference(p, line)))
            for p in some(_apart([p for p in budgeted if p.network == names[0]]))]
    headings = [h for name in names[1:] for h in (name, "difference")]
    exits = [(name, f"`{recipes[name]}`", *_first_and_last(points, name)) for name in names]
    return "\n\n".join([
        f"## Beside {' and '.join(names[1:])} at equal schedule",
        f"All learned the same pictures for {epochs} epochs at the same sizes, rates and batches; "
        f"{names[0]}'s weights are {whose}. Thresholds are the validation part's, figures those of "
        f"{points[0].data}. Values beside {names[0]}'s lie on straight lines between their "
        "network's points; `-`: outside of their range.",
        table(("mean multiply-adds", names[0], *headings), rows),
        "If all pictures stop at the same exit:",
        table(("network", "recipe", "cost at the first exit", "accuracy there",
               "cost at the last exit", "accuracy there"), exits),
        *figure])


def _first_and_last(points, name):
    exits = [p for p in points if (p.network, p.protocol) == (name, "anytime")]
    return [text for point in (exits[0], exits[-1])
            for text in (in_millions(point.mean_macs), f"{point.accuracy:.2%}")]


def _apart(points):
    """Return the points of different costs: many a budget gives the same thresholds."""
    return list({point.mean_macs: point for point in points}.values())


def _line(points, network):
    points = sorted((p.mean_macs, p.accuracy) for p in points if p.network == network)
    return tuple(zip(*points))


def _difference(point, line):
    macs, accuracies = line
    if not macs[0] <= point.mean_macs <= macs[-1]:
        return "-", "-"
    theirs = float(np.interp(point.mean_macs, macs, accuracies))
    return f"{theirs:.2%}", f"{100 * (point.accuracy - theirs):+.2f}"


def _sentence(network, line, ours):
    """Return the difference in words, for the most expensive point that both reach."""
    macs, accuracies = line
    both = [p for p in ours if macs[0] <= p.mean_macs <= macs[-1]]
    if not both:
        return f"{network} of the paper has no point at a cost of this network."
    point = max(both, key=lambda p: p.mean_macs)
    theirs = float(np.interp(point.mean_macs, macs, accuracies))
    points = 100 * (point.accuracy - theirs)
    return (f"At {in_millions(point.mean_macs)} this network is right on {point.accuracy:.2%} of "
            f"the pictures, {network} of the paper on {theirs:.2%}: **{abs(points):.2f} points "
            f"{'more' if points >= 0 else 'less'}** than the paper.")
