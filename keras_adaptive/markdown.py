"""Parts of a Markdown text: tables, and the rows that stand in them."""

import numpy as np

_MAX_ROWS = 10


def table(headings, rows, align="-:"):
    """Return a table.

    Args:
        headings: sequence of strings.
        rows: list of sequences, a value per heading.
        align: string, `"-:"` for columns that end at the right, `"--"` for the left.
    """
    def cell(value):
        # Neither a line break nor a bar may end it.
        return " ".join(str(value).split()).replace("|", r"\|")

    return "\n".join(f"| {' | '.join(map(cell, line))} |"
                     for line in (headings, [align] * len(headings), *rows))


def some(rows):
    """Return ten rows or fewer, evenly spread, the first and the last among them."""
    if len(rows) <= _MAX_ROWS:
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, _MAX_ROWS).astype(int)]
