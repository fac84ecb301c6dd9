"""A progress bar on standard error while many pictures are classified."""

import contextlib
import sys

# A bar for less work than this would be gone before it can be read.
_MIN_BATCHES = 10


@contextlib.contextmanager
def show_progress(num_pictures, batch_size, verbose):
    """Give a function that is told how many pictures have been answered.

    Args:
        num_pictures: int, or None if only the end of the stream tells.
        batch_size: int.
        verbose: True or 1 shows the bar, False or 0 does not; `"auto"` shows it on a terminal when
            the work is long or its length unknown.

    Yields:
        Function of one int, the number of pictures answered since the last call.
    """
    if verbose == "auto":
        is_long = num_pictures is None or num_pictures >= _MIN_BATCHES * batch_size
        verbose = is_long and sys.stderr.isatty()
    if not verbose:
        yield lambda num_answered: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=num_pictures)
        yield lambda num_answered: progress.advance(task, num_answered)
