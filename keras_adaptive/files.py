"""Files and folders that are whole or not there, and digests of files."""

import hashlib
import os
import pathlib
import tempfile


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


def write_folder_whole(folder, fill):
    """Write a folder so that nobody ever sees half of it.

    `fill` writes under a temporary name beside it; the folder is renamed into place when it is
    done, and replaces an earlier one as a whole. If `fill` fails, that one stays as it was.

    Args:
        folder: path of the folder.
        fill: function of the temporary path, an empty folder.
    """
    folder = pathlib.Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"partial.{folder.name}.", dir=folder.parent) as work:
        partial, earlier = pathlib.Path(work) / "new", pathlib.Path(work) / "earlier"
        partial.mkdir()
        fill(partial)
        if folder.exists():
            os.rename(folder, earlier)
        try:
            os.rename(partial, folder)
        except BaseException:
            if earlier.exists():
                os.rename(earlier, folder)
            raise


def sha256(path):
    """Return the sha256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
