"""Training on two devices gives what one gives."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys
import jax, keras, numpy as np
from keras_adaptive.models import RANet

if sys.argv[1] == "parallel":
    keras.distribution.set_distribution(keras.distribution.DataParallel())
keras.utils.set_random_seed(1)
model = RANet(scales=[1], growth_factors=[1], channels=4, growth_rate=4, blocks=2,
              layers_per_block=1, layer_growth="even", head_filters=4, pooling="global",
              num_classes=3, input_shape=(16, 16, 3), normalization="cifar10")
rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (24, 16, 16, 3)).astype("uint8"), rng.integers(0, 3, 24)
model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
total = float(sum(np.abs(np.asarray(w)).sum() for w in model.weights))
print(json.dumps([len(jax.devices()), history["loss"], total]))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="`DataParallel` is Keras's for JAX")
@pytest.mark.slow
def test_two_devices_learn_what_one_learns():
    """Losses and weights agree after six steps: batch normalisation sees the whole batch."""
    def run(kind):
        environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu",
                       "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
                       "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", PROGRAM, kind], text=True, check=True,
                              capture_output=True, env=environment, cwd=ROOT)
        return json.loads(done.stdout.splitlines()[-1])

    devices, losses, total = run("parallel")

    _, expected_losses, expected_total = run("one")
    assert devices == 2
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    assert total == pytest.approx(expected_total, rel=1e-4)
