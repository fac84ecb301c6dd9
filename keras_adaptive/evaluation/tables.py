"""Tables of points as CSV files."""

import csv
import pathlib

from keras_adaptive.files import write_whole

_MANY = 1e6  # multiply-adds, of which a tenth is too little to tell
_FEW = 1e5  # that are told in thousands


def write_table(path, rows):
    """Write rows as CSV; nothing half-written is ever found at `path`.

    Args:
        path: path of the file. Its folder is made if missing.
        rows: list of dicts by column, all with the same columns in the same order.

    Raises:
        ValueError: If there are no rows, of which the columns could be told.
    """
    if not rows:
        raise ValueError(f"{path} would be a table of no points. Give one or more.")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def fill(partial):
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, fill)


def read_table(path, columns):
    """Return the rows of a CSV file, each with the words that name its place in messages.

    Args:
        path: path of the file.
        columns: list of strings, its headings.

    Returns:
        List of pairs, a list of strings and `"path, line 2"`.

    Raises:
        ValueError: If the file has other columns.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        found = next(reader, [])
        if found != columns:
            raise ValueError(f"{path} has the columns {found}, expected {columns}.")
        return [(row, f"{path}, line {reader.line_num}") for row in reader]


def cost_text(macs):
    """Return a mean cost as text: tenths of many multiply-adds, nine digits in other units."""
    return f"{macs:.1f}" if macs >= _MANY else f"{macs:.9g}"


def in_millions(macs):
    """Return multiply-adds for people: `"12.34 M"`; `"1.23 k"`, of networks that have few."""
    return f"{macs / 1e6:.2f} M" if macs >= _FEW else f"{macs / 1e3:.2f} k"
