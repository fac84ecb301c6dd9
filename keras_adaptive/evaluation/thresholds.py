"""Thresholds that get most accuracy out of a budget, or save most work at a given accuracy."""

import dataclasses

import numpy as np

from keras_adaptive.evaluation.arguments import check_exit_macs, check_positive, check_share
from keras_adaptive.evaluation.calibration import fit_temperatures, scale_temperatures

NEVER = 2.0  # above every confidence: nobody leaves, the exit is switched off

_NUM_PRICES = 100  # of a multiply-add, that are tried at once
_NUM_BINS = 100  # of confidences while prices are tried; what is found is then refined exactly
_MAX_SWEEPS = 8

# A budget that is exactly a mean cost is met, in whatever order that is summed.
_ROUNDING = 1 + 1e-9


@dataclasses.dataclass(frozen=True)
class ChosenThresholds:
    """Thresholds and what they give on the pictures that they were chosen on.

    Attributes:
        thresholds: tuple of floats, one per exit. They lie midway between neighbouring confidences
            where float32 has a number there, so that rounding moves no picture. `NEVER` switches
            an exit off; the last is 0: that exit takes the rest.
        accuracy: float, share of right answers.
        mean_macs: float, multiply-adds of a picture; of a search in another unit, its mean cost.
        exit_shares: tuple of floats, share of pictures that leave at each exit.
        budget: float or `None`. The mean cost that was allowed, in multiply-adds, or milliseconds
            where those were asked for.
        budget_met: bool. False where even the cheapest exit costs more than the budget.
        mean_ms: float or `None`. Milliseconds of a picture, by the measured times of the stages.
        exits: tuple of ints or `None`. The exits in use, where they were chosen too.
        timed_ms: float or `None`. Milliseconds of a picture with these exits and thresholds in a
            timed run of some of the pictures, where exits were chosen.
        all_exits_timed_ms: float or `None`. The same with all exits that were in use before, and
            the best thresholds found for them, run in turns with the others.
    """

    thresholds: tuple
    accuracy: float
    mean_macs: float
    exit_shares: tuple
    budget: float | None = None
    budget_met: bool = True
    mean_ms: float | None = None
    exits: tuple | None = None
    timed_ms: float | None = None
    all_exits_timed_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class _Candidate:
    cuts: list
    right: float
    value: float
    cost: float


class ThresholdSearch:
    """Search for thresholds, one per exit, on the answers of all exits.

    Work gets a price, and the thresholds are improved one exit at a time, from the last
    to the first, until the accuracy less the price of the work no longer grows; for many prices at
    once, each from another threshold shared by all exits. Then, from the best within the budget,
    single thresholds are moved to where they use what is left of it, with every distinct confidence
    as a candidate. Moves never lower what is maximised, so that without `smooth` the result is at
    least as accurate as any start within the budget. That it is the best of all thresholds is not
    proved.

    Costs are multiply-adds here, but the search only adds them up: measured milliseconds do as
    well, and the budget and `mean_macs` are then milliseconds.

    Args:
        outputs: `ExitOutputs` of a validation part.
        exit_macs: sequence of numbers, the cost up to each exit, never decreasing.
        starts: sequence of further thresholds to start from, each one number per exit.
        smooth: bool. Whether a picture counts as right by the probability that its confidence,
            scaled with the exit's temperature, says, and not by its label. What is found is then a
            little less accurate on these pictures and more so on others: single labels are noise.
            Results are told by labels in any case.
        savings: sequence of numbers, one per exit, or `None`. What leaving out an exit saves on
            every picture that goes past it. Exits at which nobody leaves then count as left out,
            so that the search chooses exits together with thresholds; otherwise they are switched
            off only, and cost what they cost. The value of the last exit counts for nothing.

    Raises:
        ValueError: If `exit_macs` are not one positive number per exit, or they decrease; if
            `savings` are not one number per exit, from 0 to the cost of its stage.

    Example:

    >>> from keras_adaptive import ExitOutputs
    >>> outputs = ExitOutputs([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.3, 0.7]]], labels=[0, 1])
    >>> best = ThresholdSearch(outputs, [10, 30]).within(macs=20)
    >>> best.accuracy, best.mean_macs, best.thresholds
    (1.0, 20.0, (0.75, 0.0))
    """

    def __init__(self, outputs, exit_macs, starts=(), smooth=False, savings=None):
        self._macs = check_exit_macs(exit_macs, outputs.num_exits)
        self._savings = _check_savings(savings, self._macs)
        self._num = len(outputs.labels)
        # What a picture that leaves at an exit adds, (rows, exits, pictures): whether it is right,
        # the probability that it is where that is maximised, and its cost.
        rows = [outputs.is_right]
        if smooth:
            rows.append(scale_temperatures(outputs, fit_temperatures(outputs)).confidences)
        rows.append(np.broadcast_to(self._macs[:, None], outputs.is_right.shape))
        self._table = np.stack(rows).astype("float64")
        # Per exit but the last: the distinct confidences, and the rank of each picture's among
        # them. Cut `j` lets the pictures of rank `j` and above leave.
        self._values, self._ranks = [], []
        for confidences in outputs.confidences[:-1]:
            values, ranks = np.unique(confidences, return_inverse=True)
            self._values.append(values)
            self._ranks.append(ranks.astype("int32"))
        cuts = [self._all_at(number) for number in range(outputs.num_exits)]
        cuts += [[int(np.searchsorted(values, np.float32(t))) for values, t
                  in zip(self._values, thresholds)] for thresholds in starts]
        if outputs.num_exits > 1:
            cuts += self._priced()
        self._candidates = [_Candidate(cut, *self._measure(cut)) for cut in cuts]

    def within(self, macs):
        """Return the most accurate thresholds found whose mean cost is within a budget.

        Args:
            macs: number, the mean cost of a picture, in the unit of `exit_macs`.

        Returns:
            `ChosenThresholds`. Where even the cheapest exit costs more, all pictures leave there
            and `budget_met` is False.

        Raises:
            ValueError: If `macs` is no number above 0.
        """
        check_positive("macs", macs, "multiply-adds")
        macs = float(macs)  # in the result, also where NumPy's came
        limit = macs * _ROUNDING
        feasible = [c for c in self._candidates if c.cost <= limit]
        if not feasible:
            return self._choice(min(self._candidates, key=lambda c: c.cost).cuts, macs)
        start = max(feasible, key=lambda c: (c.value, -c.cost))
        # Of two that are equally good, the cheaper: a thousandth of a picture decides.
        cuts = self._refine(start.cuts, lambda right, value, cost: np.where(
            cost <= limit, value - 1e-3 * cost / self._macs[-1], -np.inf))
        # Larger budgets begin here.
        self._candidates.append(_Candidate(cuts, *self._measure(cuts)))
        return self._choice(cuts, macs)

    def reaching(self, accuracy):
        """Return the cheapest thresholds found whose accuracy is at least a given one.

        Args:
            accuracy: float, share of right answers.

        Raises:
            ValueError: If `accuracy` is no share, or no thresholds that were found are as accurate.
        """
        check_share("accuracy", accuracy)
        wanted = np.ceil(accuracy * self._num - 1e-9)  # right answers
        enough = [c for c in self._candidates if c.right >= wanted]
        if not enough:
            best = max(c.right for c in self._candidates) / self._num
            raise ValueError(
                f"An accuracy of {accuracy:.2%} is not reached on these {self._num} pictures; the "
                f"best found is {best:.2%}. Ask for less, or train further."
            )
        start = min(enough, key=lambda c: (c.cost, -c.right))
        return self._choice(self._refine(start.cuts, lambda right, value, cost: np.where(
            right >= wanted, -cost, -np.inf)))

    def _all_at(self, exit):
        """Return the cuts with which all pictures leave at one exit, counted from 0."""
        return [0 if number == exit else len(values) for number, values in enumerate(self._values)]

    def _priced(self):
        """Return cuts that maximise accuracy less the price of the work, for many prices."""
        bins, edges = zip(*[_bins(ranks, len(values), _NUM_BINS)
                            for ranks, values in zip(self._ranks, self._values)])
        span = (self._macs[-1] - self._macs[0]) or 1.0
        prices = np.append(0.0, np.geomspace(1e-3, 2, _NUM_PRICES - 1)) / span
        # The gain of leaving at an exit, (prices, pictures).
        gains = [(value - prices[:, None] * macs).astype("float32")
                 for value, macs in zip(self._table[-2], self._macs)]
        cuts = np.array([[np.searchsorted(edge, np.searchsorted(values, np.float32(threshold)))
                          for edge, values in zip(edges, self._values)]
                         for threshold in np.linspace(1, 0.2, _NUM_PRICES)])
        for _ in range(_MAX_SWEEPS):
            before = cuts.copy()
            reached = [np.ones((len(prices), self._num), bool)]
            for number, own in enumerate(bins[:-1]):
                reached.append(reached[-1] & (own < cuts[:, number, None]))
            value = gains[-1]  # of a picture that is still there, with the cuts of later exits
            for number in reversed(range(len(bins))):
                own = bins[number]
                gain = np.where(reached[number], gains[number] - value, 0.0)
                num_bins = len(edges[number]) - 1
                rows = np.arange(len(prices))[:, None] * num_bins
                sums = np.bincount((rows + own).ravel(), gain.ravel(), len(prices) * num_bins)
                # From the surest bin down; in front, the choice that nobody leaves.
                total = np.cumsum(sums.reshape(len(prices), num_bins)[:, ::-1], axis=1)
                saved = (prices * self._savings[number])[:, None].astype("float32")
                nobody = saved * reached[number].sum(axis=1, keepdims=True)
                total = np.concatenate([nobody, total], axis=1)
                cuts[:, number] = num_bins - total.argmax(axis=1)
                value = np.where(own >= cuts[:, number, None], gains[number], value)
                value += saved * (cuts[:, number, None] == num_bins)
            if np.array_equal(before, cuts):
                break
        unique = np.unique(cuts, axis=0)
        return [[int(edge[cut]) for edge, cut in zip(edges, row)] for row in unique]

    def _refine(self, cuts, score):
        """Move one cut at a time to where `score(right, value, cost)` is highest, until none moves.

        These are what `_measure` gives, as arrays with an element per candidate.
        """
        cuts = list(cuts)
        best = float(score(*map(np.array, self._measure(cuts))))
        for _ in range(_MAX_SWEEPS):
            moved = False
            there = [np.ones(self._num, bool)]  # who reaches each exit, with the cuts before it
            gone = [np.zeros(len(self._table))]  # what those who left before it add up to
            saved = [0.0]  # on each who reaches it, at the exits before it that nobody takes
            for number, cut in enumerate(cuts):
                leaves = there[-1] & (self._ranks[number] >= cut)
                is_left_out = self._savings[number] > 0 and not leaves.any()
                if is_left_out:
                    cuts[number] = len(self._values[number])
                gone.append(gone[-1] + self._table[:, number] @ leaves)
                gone[-1][-1] -= saved[-1] * leaves.sum()
                saved.append(saved[-1] + is_left_out * self._savings[number])
                there.append(there[-1] & ~leaves)
            later = self._table[:, -1]  # what a picture gives that goes on, with the later cuts
            for number in reversed(range(len(cuts))):
                ranks, size = self._ranks[number], len(self._values[number])
                change = (self._table[:, number] - later) * there[number]
                sums = np.stack([np.bincount(ranks, row, size) for row in change])
                totals = np.zeros((len(sums), size + 1))
                totals[:, :size] = np.cumsum(sums[:, ::-1], axis=1)[:, ::-1]
                totals += (gone[number] + later @ there[number])[:, None]
                num_there = there[number].sum()
                totals[-1] -= saved[number] * num_there
                totals[-1, size] -= self._savings[number] * num_there
                scores = score(np.rint(totals[0]), self._sum_of_values(totals),
                               totals[-1] / self._num)
                cut = int(scores.argmax())
                if scores[cut] > best + 1e-9:
                    best, cuts[number], moved = float(scores[cut]), cut, True
                later = np.where(ranks >= cuts[number], self._table[:, number], later)
                later[-1] -= self._savings[number] * (cuts[number] == size)
            if not moved:
                break
        return cuts

    def _exits(self, cuts):
        """Return the exit, from 0, at which each picture leaves."""
        exits = np.full(self._num, len(cuts), "int16")
        for number in reversed(range(len(cuts))):
            np.copyto(exits, number, where=self._ranks[number] >= cuts[number])
        return exits

    def _measure(self, cuts):
        """Return the right answers, the sum of what the search maximises, and the mean cost."""
        exits = self._exits(cuts)
        totals = self._table[:, exits, np.arange(self._num)].sum(axis=1)
        counts = np.bincount(exits, minlength=len(self._macs))
        left_out = np.where(counts == 0, self._savings, 0.0)
        totals[-1] -= counts @ (np.cumsum(left_out) - left_out)
        return float(totals[0]), float(self._sum_of_values(totals)), float(totals[-1] / self._num)

    def _sum_of_values(self, totals):
        """Return the sum of what is maximised: labels where nothing is smoothed."""
        return np.rint(totals[0]) if len(totals) == 2 else totals[1]

    def _choice(self, cuts, budget=None):
        exits = self._exits(cuts)
        shares = np.bincount(exits, minlength=len(self._macs)) / self._num
        right, _, cost = self._measure(cuts)
        thresholds = [_threshold(values, cut if share else len(values))
                      for values, cut, share in zip(self._values, cuts, shares)]
        return ChosenThresholds((*thresholds, 0.0), right / self._num, cost,
                                tuple(float(share) for share in shares),
                                budget, budget is None or bool(cost <= budget * _ROUNDING))


def _check_savings(savings, macs):
    """Return what is saved at each exit but the last, and 0 for that, as a float64 array."""
    if savings is None:
        return np.zeros(len(macs))
    values = np.array(savings, dtype="float64")
    most = np.diff(macs, prepend=0.0) + macs[-1] * (_ROUNDING - 1)
    if values.shape == macs.shape:
        values[-1] = 0.0
    if values.shape != macs.shape or not np.all((values >= 0) & (values <= most)):
        raise ValueError(
            f"`savings` takes one number per exit: {len(macs)}, from 0 to the cost of its stage, "
            f"{np.diff(macs, prepend=0.0).tolist()}. Received: {savings!r}."
        )
    return values


def _bins(ranks, num_values, most):
    """Return the bin of every picture, and the first rank of each bin with the end after them.

    Bins hold about equally many pictures; equal confidences fall into the same.
    """
    counts = np.cumsum(np.bincount(ranks, minlength=num_values))
    wanted = np.linspace(0, len(ranks), most + 1)[1:-1]
    edges = np.unique([0, *(np.searchsorted(counts, wanted) + 1).clip(max=num_values), num_values])
    return np.searchsorted(edges, ranks, side="right") - 1, edges


def _threshold(values, cut):
    """Return the threshold that the values from position `cut` on reach."""
    if cut == len(values):
        return NEVER
    if cut == 0:
        return 0.0
    below, above = values[cut - 1], values[cut]
    middle = np.float32((float(below) + float(above)) / 2)
    return float(middle if middle > below else above)
