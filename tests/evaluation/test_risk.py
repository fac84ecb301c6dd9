import numpy as np
import pytest

from keras_adaptive.evaluation import NEVER, choose_safe_threshold

COSTS = [1, 2, 3, 4]


def test_the_bound_holds_as_often_as_promised(draw_outputs):
    """100 validation parts of 500 pictures; the loss on a large population is beyond the bound for
    no more of them than promised, within three standard deviations of that count."""
    population = draw_outputs(50_000, seed=1)
    full = population.accuracies()[-1]
    confidence, runs, losses, costs = 0.8, 100, {}, []
    too_high = 0
    for seed in range(runs):
        chosen = choose_safe_threshold(draw_outputs(500, seed=100 + seed), COSTS, max_loss=0.03,
                                       confidence=confidence)
        if chosen.thresholds not in losses:
            losses[chosen.thresholds] = full - population.simulate(chosen.thresholds).accuracy
        too_high += losses[chosen.thresholds] > 0.03
        costs.append(chosen.mean_macs)

    promised = runs * (1 - confidence)
    assert too_high <= promised + 3 * (promised * confidence) ** 0.5
    assert np.mean(costs) < 0.7 * COSTS[-1]  # and the promise is not kept by saving nothing


def test_too_few_pictures_show_nothing(draw_outputs):
    chosen = choose_safe_threshold(draw_outputs(20, seed=0), COSTS, max_loss=0.01)

    assert chosen.thresholds == (NEVER, NEVER, NEVER, 0.0)
    assert chosen.exit_shares == (0, 0, 0, 1)


def test_a_larger_loss_allows_a_lower_threshold(draw_outputs):
    outputs = draw_outputs(5000, seed=0)

    careful, bold = (choose_safe_threshold(outputs, COSTS, loss) for loss in (0.01, 0.05))

    assert bold.thresholds[0] < careful.thresholds[0] < NEVER
    assert bold.mean_macs < careful.mean_macs


@pytest.mark.parametrize("wrong", [{"max_loss": 0}, {"max_loss": 1.5},
                                   {"max_loss": 0.1, "confidence": 95}])
def test_shares_out_of_range_are_refused(draw_outputs, wrong):
    with pytest.raises(ValueError, match="is a share between 0 and 1"):
        choose_safe_threshold(draw_outputs(10, seed=0), COSTS, **wrong)
