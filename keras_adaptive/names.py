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
