"""Files that are whole or not there, and their digests."""

import hashlib
import os
import pathlib


def write_whole(path, fill):
    """Write a file so that nobody ever sees half of it.

    `fill` writes under a temporary name in the same folder; the file is renamed into place when it
    is done. If `fill` fails, an earlier file of that name stays as it was.

    Args:
        path: path of the file.
        fill: function of the temporary path, which has the same ending.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f"partial.{path.name}")
    try:
        fill(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sha256(path):
    """Return the sha256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
