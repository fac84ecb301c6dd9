"""The optional package that feeds `fit`."""


def import_grain():
    """Return the module `grain`.

    Raises:
        ImportError: If grain is not installed; with the line that installs it.
    """
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            "Training pipelines need the `grain` package: `pip install keras_adaptive[data]`."
        ) from error
    return grain
