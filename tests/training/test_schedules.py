import keras
import pytest

from keras_adaptive.training.schedules import CosineCycles


def test_one_cycle_is_kerass_cosine_with_warm_up():
    ours = CosineCycles(0.2, [10], warmup_steps=2)
    kerass = keras.optimizers.schedules.CosineDecay(0.0, 8, warmup_target=0.2, warmup_steps=2)

    assert [float(ours(step)) for step in range(12)] == pytest.approx(
        [float(kerass(step)) for step in range(12)])


def test_every_cycle_rises_and_falls_to_zero():
    """By hand: half way along a cosine is half the peak; after the last cycle nothing is left."""
    rates = CosineCycles(0.4, [4, 6], warmup_steps=2)

    expected = [0, 0.2, 0.4, 0.2, 0, 0.2, 0.4, 0.4 * (1 + 2**-0.5) / 2, 0.2,
                0.4 * (1 - 2**-0.5) / 2, 0, 0]
    assert [float(rates(step)) for step in range(12)] == pytest.approx(expected, abs=1e-6)


def test_cycles_may_have_peaks_of_their_own():
    rates = CosineCycles([0.4, 0.1], [4, 4], warmup_steps=2)

    assert [float(rates(step)) for step in range(8)] == pytest.approx(
        [0, 0.2, 0.4, 0.2, 0, 0.05, 0.1, 0.05], abs=1e-6)


@pytest.mark.parametrize("peak", [0.2, [0.2, 0.1]])
def test_a_schedule_comes_back_from_its_configuration(peak):
    schedule = CosineCycles(peak, [10, 5], warmup_steps=2)

    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))

    assert again.get_config() == schedule.get_config()
