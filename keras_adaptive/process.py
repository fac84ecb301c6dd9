"""Settings of a process that trains on a processor, which must be there before it starts.

What they bring is measured by `benchmarks/training_speed.py`.
"""

import os
import pathlib
import sys
import tomllib

from keras_adaptive import content

# glibc: memory that a step gives back is kept for the next one, in place of thousands of page
# faults a step.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_ARENA_MAX": "2",
}
# Networks of many thin operations beside each other, by what their configuration's name says. They
# gain from two operations at a time, which static networks do not have.
_THIN = ("ranet", "msdnet")
_ACCELERATORS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")


def training_settings(recipe, num_cores=None):
    """Return the environment variables with which a recipe trains fastest on a processor.

    Args:
        recipe: string, as `recipes.load` takes it.
        num_cores: int or `None` for those of this process.

    Returns:
        Dict of strings. Empty on other systems than Linux, and where there is an accelerator.
    """
    if sys.platform != "linux" or any(map(os.path.exists, _ACCELERATORS)):
        return {}
    settings = dict(ALLOCATOR)
    is_tensorflow = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
    num_cores = num_cores or len(os.sched_getaffinity(0))
    if is_tensorflow and num_cores > 1 and any(
            name in _configuration(recipe) for name in _THIN):
        settings |= {"TF_NUM_INTRAOP_THREADS": str(num_cores // 2), "TF_NUM_INTEROP_THREADS": "2"}
    return settings


def restart_for_training(recipe):
    """Start this process anew with the settings for training; variables that are set stay.

    Does not return where something is to be set. The new process finds everything set.

    Args:
        recipe: string, as `recipes.load` takes it.
    """
    missing = {name: value for name, value in training_settings(recipe).items()
               if name not in os.environ}
    if missing:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})


def _configuration(recipe):
    """Return the name of the recipe's network; not through `recipes`, which waits for Keras."""
    path = content.folder("recipes") / f"{recipe}.toml"
    try:
        text = (path if path.is_file() else pathlib.Path(recipe)).read_text(encoding="utf-8")
        return str(tomllib.loads(text)["model"]["configuration"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # training will say what is wrong with it
