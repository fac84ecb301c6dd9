import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_adaptive.evaluation import NEVER, ExitOutputs, ThresholdSearch

COSTS = [10.0, 25.0, 40.0]

# Few different values, so that ties and saturated confidences are the rule.
few_values = st.sampled_from([0.25, 0.5, 0.5000001, 0.75, 1.0])
outputs_with_ties = st.builds(
    lambda sure, labels: ExitOutputs(np.stack([sure, 1 - sure], axis=-1), labels),
    hnp.arrays("float32", (3, 7), elements=few_values),
    hnp.arrays("int64", 7, elements=st.integers(0, 1)))


def all_results(outputs, savings=(0, 0, 0)):
    """Return right answers and mean cost of every distinct choice of thresholds."""
    per_exit = [[*np.unique(c), NEVER] for c in outputs.confidences[:-1]]
    results = []
    for thresholds in itertools.product(*per_exit):
        simulated = outputs.simulate([*thresholds, 0])
        results.append((simulated.accuracy, mean_cost(simulated, savings)))
    return results


def mean_cost(simulated, savings):
    """Return the mean cost of a picture without the exits at which nobody leaves."""
    left_out = np.where(np.array(simulated.exit_shares) == 0, savings, 0)
    saved_before = [sum(left_out[:number]) for number in range(len(COSTS))]
    return simulated.mean_macs(np.array(COSTS) - saved_before)


def test_budget_is_spent_where_it_brings_most():
    """By hand: exit 2 mends picture 2 only; 20 multiply-adds a picture pay for one to go on."""
    outputs = ExitOutputs([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.3, 0.7]]], [0, 1])
    search = ThresholdSearch(outputs, [10, 30])

    best = search.within(20)

    assert (best.accuracy, best.mean_macs, best.exit_shares) == (1.0, 20.0, (0.5, 0.5))
    assert best.thresholds == (0.75, 0.0)  # midway between 0.6 and 0.9
    assert best.budget_met
    assert search.within(15).mean_macs == 10


@settings(max_examples=60, deadline=None)
@given(outputs=outputs_with_ties, budget=st.floats(5, 45))
def test_result_is_what_the_thresholds_give_and_keeps_to_the_budget(outputs, budget):
    best = ThresholdSearch(outputs, COSTS).within(budget)

    simulated = outputs.simulate(best.thresholds)

    assert simulated.accuracy == best.accuracy
    assert simulated.mean_macs(COSTS) == pytest.approx(best.mean_macs)
    assert simulated.exit_shares == best.exit_shares
    assert best.budget_met == (best.mean_macs <= budget * (1 + 1e-9)) == (budget >= COSTS[0])
    if not best.budget_met:
        assert best.mean_macs == COSTS[0]  # the nearest to it


@settings(max_examples=60, deadline=None)
@given(outputs=outputs_with_ties, budget=st.floats(10, 45))
def test_search_comes_close_to_the_best_of_all_thresholds(outputs, budget):
    """With seven pictures, moving single cuts misses at most two right answers."""
    best = ThresholdSearch(outputs, COSTS).within(budget)

    optimum = max(accuracy for accuracy, cost in all_results(outputs) if cost <= budget + 1e-9)

    assert optimum - 2 / 7 - 1e-9 <= best.accuracy <= optimum + 1e-9


@settings(max_examples=40, deadline=None)
@given(outputs=outputs_with_ties, nudge=st.sampled_from([-1e-9, 1e-9]))
def test_thresholds_lie_between_confidences(outputs, nudge):
    """Rounding moves no picture, unless its neighbour is the next number of float32."""
    best = ThresholdSearch(outputs, COSTS).within(25)

    for threshold, confidences in zip(best.thresholds[:-1], outputs.confidences):
        values = np.unique(confidences)
        if threshold in (0, NEVER):
            continue
        neighbours = np.diff(values) <= np.spacing(values[1:])
        above = np.searchsorted(values, np.float32(threshold))
        assert threshold not in values or neighbours[above - 1]


def test_an_exit_that_does_not_pay_is_switched_off(draw_outputs):
    """An exit as good as a coin is worth its cost for nobody."""
    outputs = draw_outputs(2000, seed=0, num_exits=3)
    probabilities = outputs.probabilities.copy()
    probabilities[1] = np.roll(probabilities[1], 1, axis=-1)  # sure and wrong
    best = ThresholdSearch(ExitOutputs(probabilities, outputs.labels), COSTS).within(30)

    assert best.thresholds[1] == NEVER
    assert best.exit_shares[1] == 0


def test_more_budget_is_never_worse(draw_outputs):
    search = ThresholdSearch(draw_outputs(3000, seed=1), [1, 2, 3, 4])

    accuracies = [search.within(budget).accuracy for budget in np.linspace(1, 4, 30)]

    assert accuracies == sorted(accuracies)


def test_an_accuracy_is_reached_at_less_than_the_full_cost(draw_outputs):
    outputs = draw_outputs(3000, seed=2)
    search = ThresholdSearch(outputs, [1, 2, 3, 4])

    chosen = search.reaching(outputs.accuracies()[2])

    assert chosen.accuracy >= outputs.accuracies()[2]
    assert chosen.mean_macs < 3


def test_an_accuracy_out_of_reach_is_told_with_the_best(draw_outputs):
    with pytest.raises(ValueError, match="99.99% is not reached .* best found is 9"):
        ThresholdSearch(draw_outputs(1000, seed=3), [1, 2, 3, 4]).reaching(0.9999)


@pytest.mark.parametrize("accuracy, message", [
    (95, "share from 0 to 1. Received: 95. Did you mean 0.95"), (-3, "Received: -3.$"),
    (float("nan"), "Received: nan"), ("0.9", "Received: '0.9'")])
def test_accuracies_that_are_no_share_are_refused(draw_outputs, accuracy, message):
    """Rather than called out of reach, or reached."""
    with pytest.raises(ValueError, match=message):
        ThresholdSearch(draw_outputs(10, seed=3), [1, 2, 3, 4]).reaching(accuracy)


@pytest.mark.parametrize("costs", [[1, 2, 3], [4, 3, 2, 1], [0, 1, 2, 3]])
def test_costs_that_fit_no_network_are_refused(draw_outputs, costs):
    with pytest.raises(ValueError, match="`exit_macs`"):
        ThresholdSearch(draw_outputs(10, seed=0), costs)


def test_a_network_of_one_exit_has_nothing_to_choose():
    best = ThresholdSearch(ExitOutputs([[[0.9, 0.1]]], [0]), [5]).within(9)

    assert (best.thresholds, best.accuracy, best.mean_macs) == ((0.0,), 1.0, 5.0)


def test_smoothed_thresholds_do_better_on_new_pictures(draw_outputs):
    """Few pictures to choose on, many to measure on: the mean over ten draws and three budgets."""
    costs = [1, 2, 3, 4]
    test = draw_outputs(20_000, seed=99)
    accuracies = {True: [], False: []}
    for seed in range(10):
        outputs = draw_outputs(300, seed=seed)
        for smooth, results in accuracies.items():
            search = ThresholdSearch(outputs, costs, smooth=smooth)
            for budget in (1.7, 2.4, 3.1):
                chosen = search.within(budget)
                simulated = outputs.simulate(chosen.thresholds)
                assert chosen.accuracy == simulated.accuracy  # told by labels in any case
                assert chosen.mean_macs <= budget
                results.append(test.simulate(chosen.thresholds).accuracy)

    assert np.mean(accuracies[True]) > np.mean(accuracies[False])


def test_a_budget_that_is_a_mean_cost_is_met():
    """However it was summed: here the mean of equal fractions, which rounding may miss."""
    rng = np.random.default_rng(0)
    for num_pictures in range(3, 60):
        sure = rng.uniform(0.5, 1, (3, num_pictures))
        outputs = ExitOutputs(np.stack([sure, 1 - sure], axis=-1), np.zeros(num_pictures, int))
        best = ThresholdSearch(outputs, [0.1, 0.3, 0.7]).within(0.1)
        assert best.budget_met
        assert best.mean_macs == pytest.approx(0.1)


# What leaving out exit 1 and 2 saves, up to the cost of their whole stages.
any_savings = st.tuples(st.sampled_from([0, 3, 10]), st.sampled_from([0, 7.5, 15]), st.just(0))


def test_an_exit_that_costs_more_than_it_saves_is_left_out():
    """By hand: exit 2 takes one of three pictures and saves it 15; its head costs 12 for each."""
    outputs = ExitOutputs([[[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]],
                           [[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]],
                           [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]], [0, 0, 1, 1])

    in_use = ThresholdSearch(outputs, COSTS).reaching(1.0)
    left_out = ThresholdSearch(outputs, COSTS, savings=[0, 12, 0]).reaching(1.0)

    assert in_use.exit_shares == (0.25, 0.25, 0.5)
    assert in_use.mean_macs == (10 + 25 + 40 + 40) / 4
    assert left_out.exit_shares == (0.25, 0, 0.75)
    assert left_out.thresholds[1] == NEVER
    assert left_out.mean_macs == (10 + 28 + 28 + 28) / 4


def test_a_first_exit_that_never_pays_is_passed_by():
    """The whole of exit 1 is head: a picture that must not pay for it leaves at exit 2, cheaper."""
    outputs = ExitOutputs([[[0.9, 0.1]], [[0.9, 0.1]], [[0.9, 0.1]]], [0])

    best = ThresholdSearch(outputs, [10, 11, 40], savings=[10, 0, 0]).within(5)

    assert (best.thresholds, best.mean_macs, best.budget_met) == ((NEVER, 0.0, 0.0), 1.0, True)


@settings(max_examples=80, deadline=None)
@given(outputs=outputs_with_ties, savings=any_savings, accuracy=st.sampled_from([0.3, 0.6, 1.0]))
def test_leaving_exits_out_is_never_dearer_at_the_same_accuracy(outputs, savings, accuracy):
    """Started from the best with all exits, it can only become cheaper; and the cost is true."""
    wanted = min(accuracy, max(right for right, _ in all_results(outputs)))
    try:
        plain = ThresholdSearch(outputs, COSTS).reaching(wanted)
    except ValueError:  # the search does not promise to find the very best
        return

    best = ThresholdSearch(outputs, COSTS, [plain.thresholds], savings=savings).reaching(wanted)

    simulated = outputs.simulate(best.thresholds)
    assert simulated.accuracy == best.accuracy >= wanted
    assert simulated.exit_shares == best.exit_shares
    assert best.mean_macs == pytest.approx(mean_cost(simulated, savings))
    assert best.mean_macs <= plain.mean_macs + 1e-9
    optimum = min(cost for right, cost in all_results(outputs, savings) if right >= wanted)
    assert best.mean_macs >= optimum - 1e-9


@settings(max_examples=80, deadline=None)
@given(outputs=outputs_with_ties, savings=any_savings, budget=st.floats(1, 45))
def test_a_budget_holds_for_the_exits_that_are_left(outputs, savings, budget):
    """Within it the result is at most two pictures from the optimum, or else it says so."""
    best = ThresholdSearch(outputs, COSTS, savings=savings).within(budget)

    results = all_results(outputs, savings)
    feasible = [right for right, cost in results if cost <= budget + 1e-9]
    assert best.mean_macs == pytest.approx(mean_cost(outputs.simulate(best.thresholds), savings))
    assert best.budget_met == (best.mean_macs <= budget * (1 + 1e-9))
    if feasible:
        assert best.budget_met
        assert max(feasible) - 2 / 7 - 1e-9 <= best.accuracy <= max(feasible) + 1e-9
    else:
        assert best.mean_macs == pytest.approx(min(cost for _, cost in results))


@pytest.mark.parametrize("savings", [[1, 2], [11, 0, 0], [-1, 0, 0], [float("nan"), 0, 0]])
def test_savings_that_no_stage_has_are_refused(draw_outputs, savings):
    with pytest.raises(ValueError, match="`savings` takes one number per exit"):
        ThresholdSearch(draw_outputs(10, seed=0, num_exits=3), COSTS, savings=savings)


def test_results_are_plain_numbers():
    outputs = ExitOutputs([[[0.9, 0.1], [0.6, 0.4]], [[0.8, 0.2], [0.3, 0.7]]], [0, 1])
    chosen = ThresholdSearch(outputs, [1, 2]).within(np.float32(1.5))
    assert type(chosen.budget) is float and type(chosen.budget_met) is bool
    assert json.loads(json.dumps(dataclasses.asdict(chosen)))["budget"] == 1.5
