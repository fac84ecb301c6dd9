"""Learning rates over a run that Keras's own schedules do not give."""

import keras


@keras.saving.register_keras_serializable(package="keras_adaptive")
class CosineCycles(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up and cosine decay to zero, cycle after cycle (SGDR, arXiv 1608.03983).

    Args:
        peak: float, or a sequence of one per cycle. The learning rate that a cycle rises to.
        cycle_steps: sequence of ints. Steps of each cycle. After the last the rate stays zero.
        warmup_steps: int. Steps of the rise at the start of every cycle.
    """

    def __init__(self, peak, cycle_steps, warmup_steps=0):
        super().__init__()
        self.cycle_steps = list(cycle_steps)
        self.peak = list(peak) if isinstance(peak, (list, tuple)) else peak
        self.warmup_steps = warmup_steps
        peaks = (self.peak if isinstance(self.peak, list)
                 else [peak] * len(self.cycle_steps))
        self._cycles = [self._cycle(peak, steps)
                        for peak, steps in zip(peaks, self.cycle_steps, strict=True)]

    def _cycle(self, peak, steps):
        warmup = self.warmup_steps
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else peak,
            decay_steps=max(steps - warmup, 1), warmup_steps=warmup,
            warmup_target=peak if warmup else None)

    def __call__(self, step):
        rate, start = self._cycles[0](step), 0
        for steps, cycle in zip(self.cycle_steps, self._cycles[1:]):
            start += steps
            rate = keras.ops.where(step >= start, cycle(step - start), rate)
        return rate

    def get_config(self):
        return {"peak": self.peak, "cycle_steps": self.cycle_steps,
                "warmup_steps": self.warmup_steps}
