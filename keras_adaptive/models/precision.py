"""Building under another dtype policy than the present one."""

import contextlib

import keras


@contextlib.contextmanager
def use_precision(policy):
    """Make a dtype policy the global one inside a `with` block.

    Args:
        policy: string or `keras.DTypePolicy`, such as `"mixed_bfloat16"`.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
