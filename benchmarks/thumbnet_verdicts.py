"""What the runs of `thumbnet_claims.py` and `thumbnet_transfer.py` say: judged from their rows.

Claims and margins were fixed before the first run of what they compare.
"""

import math
import statistics

from rich.console import Console
from rich.table import Table
from thumbnet_arms import ARMS

MARGIN = 0.3  # points
# Student's t for a two-sided interval of 95 %, by the number of pairs.
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306,
        10: 2.262}

# What is claimed: the first arm is better than the second.
CLAIMS = [
    ("C1", "it beats direct training on bicubic thumbnails", "full", "direct"),
    ("C1", "... of twice the epochs", "full", "direct_long"),
    ("C2", "it beats the honest control", "full", "honest"),
    ("C3", "moments help accuracy", "full", "without_moments"),
    ("C3", "... where labels are all that is learned from", "learned_moments", "learned_labels"),
    ("C3", "distillation helps", "full", "without_distillation"),
    ("C3", "features help", "full", "without_features"),
    ("C3", "labels help", "full", "without_labels"),
    ("C4", "learned thumbnails beat averaged ones, all else equal", "full", "honest_features"),
    ("C4", "... and bicubic ones", "full", "bicubic_features"),
    ("C4", "shrinking that is learned does it, not two more layers", "full", "more_layers"),
    ("ours", "learned ones that start as averaged ones beat these", "full_from_area",
     "honest_features"),
    ("ours", "learned ones beat averaged ones where labels are all", "learned_labels",
     "labels_only"),
    ("ours", "bicubic thumbnails beat single pixels", "direct", "aliased"),
    ("ours", "training beats new statistics alone", "honest", "free_lunch"),
    ("ours", "... and tuning the classifier, both from labels", "labels_only", "classifier_only"),
    ("C9", "the teacher's start helps", "full", "random_start"),
    ("C9", "... against twice the epochs, too", "full", "random_start_long"),
    ("C12", "it beats a small network of the same cost", "full", "small"),
    ("ours", "... from random weights, too", "random_start", "small"),
    ("C13", "the small maps cost accuracy, not the lost pixels", "enlarged", "honest"),
    ("C13", "maps of that size can hold more than averages", "unshuffled", "honest"),
]
# With and without moment matching, all else equal.
MOMENT_PAIRS = [("full", "without_moments"), ("learned_moments", "learned_labels")]
# Columns of a row with a learned downscaler: what its thumbnails look like.
QUALITY = ("moment_difference", "psnr", "ssim", "clipped_share")


def interval(values):
    """Return the mean of values and half of its 95 % interval by Student's t.

    Args:
        values: list of floats, one per seed, from two to ten.
    """
    half = T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), half


def judge(differences):
    """Return the mean of paired differences, half its 95 % interval, and what that says.

    Args:
        differences: list of floats in points, one per seed, from two to ten.
    """
    mean, half = interval(differences)
    if mean >= MARGIN and mean - half > 0:
        return mean, half, "held"
    if mean + half < 0:
        return mean, half, "refuted"
    if -MARGIN <= mean - half and mean + half <= MARGIN:
        return mean, half, "null"
    return mean, half, "undecided"


def judge_moments(matched, unmatched):
    """Return how often moment matching kept thumbnails natural, and what that says.

    It is held where, with every seed, matching made the difference of moments ten times smaller and
    the thumbnails nearer to averaged ones (PSNR), and accuracy is not lower by more than the
    margin: the interval of its differences lies above that.

    Args:
        matched, unmatched: dicts from seed to row, with and without moment matching.

    Returns:
        Dict with the number of `seeds`, of those with `tenfold` smaller differences and of those
        `nearer`, and the `verdict`; or `None` with fewer than two seeds whose thumbnails were
        measured in both.
    """
    seeds = [seed for seed in _common(matched, unmatched)
             if all(side[seed].get("psnr") for side in (matched, unmatched))]
    if len(seeds) not in T_95:
        return None
    pairs = [(matched[seed], unmatched[seed]) for seed in seeds]
    tenfold = sum(10 * float(own["moment_difference"]) <= float(other["moment_difference"])
                  for own, other in pairs)
    nearer = sum(float(own["psnr"]) > float(other["psnr"]) for own, other in pairs)
    mean, half = interval([_points(*pair) for pair in pairs])
    if tenfold < len(pairs) or nearer < len(pairs) or mean + half < -MARGIN:
        verdict = "refuted"
    else:
        verdict = "held" if mean - half > -MARGIN else "undecided"
    return {"seeds": len(pairs), "tenfold": tenfold, "nearer": nearer, "verdict": verdict}


def gap_closed(rows):
    """Return which share of what direct training loses to the teacher is made up for.

    Args:
        rows: dict from arm to dict from seed to row.

    Returns:
        List of floats, one per seed in which the teacher is better than direct training.
    """
    full, direct, teacher = (rows.get(arm, {}) for arm in ("full", "direct", "teacher"))
    return [_points(full[seed], direct[seed]) / _points(teacher[seed], direct[seed])
            for seed in _common(full, direct, teacher) if _points(teacher[seed], direct[seed]) > 0]


def show(rows, ratio=None):
    """Print arms and claims.

    Args:
        rows: list of dicts, as in the file of results.
        ratio: int; or `None` for all that have rows.
    """
    by_ratio = {}
    for row in rows:
        arms = by_ratio.setdefault(int(row["ratio"]), {})
        arms.setdefault(row["arm"], {})[int(row["seed"])] = row
    console = Console(width=150)
    for shown in sorted(by_ratio) if ratio is None else [ratio]:
        arms = by_ratio.get(shown, {})
        console.print(_arms_table(shown, arms), _claims_table(shown, arms))
        if any(_measured(by_seed) for by_seed in arms.values()):
            console.print(_quality_table(arms))
    growth = _gains(by_ratio.get(4, {})), _gains(by_ratio.get(2, {}))
    seeds = _common(*growth)
    if ratio is None and len(seeds) in T_95:
        mean, half, verdict = judge([growth[0][seed] - growth[1][seed] for seed in seeds])
        console.print("C5, what full gains over honest, at ratio 4 minus at ratio 2: "
                      f"{mean:+.2f} points, {_range(mean, half)}, {verdict}")


def _gains(arms):
    full, honest = arms.get("full", {}), arms.get("honest", {})
    return {seed: _points(full[seed], honest[seed]) for seed in _common(full, honest)}


def _arms_table(ratio, arms):
    table = Table("", "arm", "what it is", "epochs", "M", "accuracy", "by seed",
                  title=f"ratio {ratio}; M: million multiply-adds of a picture")
    for name, arm in ARMS.items():
        if name not in arms:
            continue
        by_seed = [arms[name][seed] for seed in sorted(arms[name])]
        accuracies = [float(row["accuracy"]) for row in by_seed]
        table.add_row(
            arm.plan, name, arm.what, str(by_seed[0]["epochs"]),
            f"{int(by_seed[0]['macs']) / 1e6:.2f}", f"{statistics.fmean(accuracies):.2%}",
            " ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies))
    return table


def _claims_table(ratio, arms):
    table = Table("", "claim", "compared", "difference, points", "95 % interval", "")
    for number, text, better, worse in CLAIMS:
        add_comparison(table, (number, text, f"{better} - {worse}"), arms.get(better, {}),
                       arms.get(worse, {}))
    shares = gap_closed(arms)
    if len(shares) in T_95:
        mean, half = interval([100 * share for share in shares])
        table.add_row("C5", f"the accuracy is kept at 1/{ratio**2} of the pixels",
                      "(full - direct) / (teacher - direct)", f"{mean:.0f} % of the gap closed",
                      f"{mean - half:.0f} to {mean + half:.0f}", "described")
    for matched, unmatched in MOMENT_PAIRS:
        moments = judge_moments(arms.get(matched, {}), arms.get(unmatched, {}))
        if moments:
            seeds = moments["seeds"]
            table.add_row("C10", "moments keep thumbnails natural", f"{matched}, {unmatched}",
                          f"10 times nearer: {moments['tenfold']} of {seeds}, "
                          f"higher PSNR: {moments['nearer']} of {seeds}", "", moments["verdict"])
    return table


def _quality_table(arms):
    """Tell of the thumbnails of all seeds of an arm, on average."""
    table = Table("arm", "seeds", *QUALITY,
                  title="learned thumbnails: moments against the picture, PSNR and SSIM to "
                        "averaged ones")
    for name, by_seed in arms.items():
        measured = _measured(by_seed)
        if measured:
            means = (statistics.fmean(float(row[column]) for row in measured)
                     for column in QUALITY)
            table.add_row(name, str(len(measured)), *(f"{mean:.4g}" for mean in means))
    return table


def _measured(by_seed):
    return [row for row in by_seed.values() if row.get("psnr")]


def add_comparison(table, names, better, worse):
    """Add a row to a table of claims, if both sides have enough seeds in common.

    Args:
        table: `rich.table.Table`.
        names: tuple of strings, the first cells.
        better, worse: dicts from seed to row.
    """
    seeds = _common(better, worse)
    if len(seeds) in T_95:
        mean, half, verdict = judge([_points(better[seed], worse[seed]) for seed in seeds])
        table.add_row(*names, f"{mean:+.2f}", _range(mean, half), verdict)


def _range(mean, half):
    return f"{mean - half:+.2f} to {mean + half:+.2f}"


def _points(row, other):
    return 100 * (float(row["accuracy"]) - float(other["accuracy"]))


def _common(*by_seed):
    return sorted(set.intersection(*map(set, by_seed)))
