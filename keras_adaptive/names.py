"""Help with names that do not exist."""

import difflib


def did_you_mean(name, known):
    """Return the end of an error message that suggests the nearest known name.

    Args:
        name: what was asked for.
        known: iterable of strings.

    Returns:
        `" Did you mean '…'?"`, or an empty string where nothing is near.

    Example:

    >>> did_you_mean("ranet_cifar", ["ranet_cifar10", "msdnet_imagenet"])
    " Did you mean 'ranet_cifar10'?"
    """
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_keys(where, values, known):
    """Check the keys of an object that was read from JSON: all of `known`, and no others.

    Args:
        where: path or string. Names the object, as the beginning of an error message.
        values: what was read.
        known: iterable of strings.

    Raises:
        ValueError: If `values` is no dict, or has an unknown or a missing key.
    """
    known = list(known)
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected an object with the keys {known}.")
    for key in values:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}.{did_you_mean(key, known)}")
    missing = [key for key in known if key not in values]
    if missing:
        raise ValueError(f"{where}: the keys {missing} are missing.")
