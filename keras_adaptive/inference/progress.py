"""A progress bar on standard error while many pictures are classified."""

import contextlib
import sys

# A bar for less work than this would be gone before it can be read.
_MIN_BATCHES = 10


def show_progress(num_pictures, batch_size, verbose):
    """Give a function that is told how many pictures have been answered.

    Args:
        num_pictures: int, or None if only the end of the stream tells.
        batch_size: int.
        verbose: True or 1 shows the bar, False or 0 does not; `"auto"` shows it on a terminal when
            the work is long or its length unknown.

    Returns:
        Context manager of a function of one int, the number of pictures answered since the last
        call.
    """
    if verbose == "auto":
        is_long = num_pictures is None or num_pictures >= _MIN_BATCHES * batch_size
        verbose = is_long and sys.stderr.isatty()
    return _show_bar("pictures", num_pictures) if verbose else _NO_BAR


def show_warm_up(num_runs, verbose):
    """Give a function that is told how many runs of stages are done.

    Args:
        num_runs: int.
        verbose: as for `show_progress`; `"auto"` shows the bar on a terminal.

    Returns:
        Context manager of a function of one int.
    """
    if verbose == "auto":
        verbose = sys.stderr.isatty()
    return _show_bar("warming up", num_runs) if verbose else _NO_BAR


_NO_BAR = contextlib.nullcontext(lambda num_done: None)


@contextlib.contextmanager
def _show_bar(title, total):
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total)
        yield lambda num_done: progress.advance(task, num_done)
