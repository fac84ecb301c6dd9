"""Where the package's content stands: trained models and recipes, files that people browse."""

import pathlib

DEFAULT_MODEL = "ranet_imagenet"  # of the predictor, and of commands that take any model
# The pictures of the demonstration are of CIFAR-10's classes.
DEMO_MODEL = "ranet_cifar10"

_PACKAGE = pathlib.Path(__file__).resolve().parent


def folder(kind):
    """Return the folder `zoo` or `recipes`, in a checkout and in an installed package alike.

    In a checkout the folders stand beside the package. A wheel carries them inside of it, as
    `setup.cfg` maps them.

    Args:
        kind: `"zoo"` or `"recipes"`.

    Raises:
        FileNotFoundError: If the package was installed without its content.
    """
    places = (_PACKAGE / "_content" / kind, _PACKAGE.parent / kind)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"The folder {kind!r} is in none of its places: {', '.join(map(str, places))}. "
        "The installation is incomplete; install keras_adaptive again."
    )
