"""Files and folders that are whole or not there, JSON that is JSON, and digests of files."""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile

_PARTIAL = ".partial."  # hidden, so that nobody takes what an interruption leaves for a picture


def write_whole(path, fill):
    """Write a file so that nobody ever sees half of it.

    `fill` writes in a temporary, hidden folder beside it; the file is renamed into place when it is
    done. If `fill` fails, an earlier file of that name stays as it was.

    Args:
        path: path of the file.
        fill: function of the temporary path, which has the same name.
    """
    path = pathlib.Path(path)
    # A name of its own beside the file might be that of somebody else's.
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=path.parent) as work:
        partial = pathlib.Path(work) / path.name
        fill(partial)
        os.replace(partial, path)


def check_is_no_folder(path):
    """Raise a `ValueError` before long work if a file that is to be written is a folder."""
    if os.path.isdir(path):
        raise ValueError(
            f"{str(path)!r} is a folder. Give the name of a file, such as "
            f"{os.path.join(path, 'NAME')!r}."
        )


def check_is_no_file(path):
    """Raise a `ValueError` before long work if a folder that is to be written is a file."""
    if os.path.isfile(path):
        raise ValueError(f"{str(path)!r} is a file. Give the name of a folder.")


def write_folder_whole(folder, fill):
    """Write a folder so that nobody ever sees half of it.

    `fill` writes under a temporary name beside it; the folder is renamed into place when it is
    done, and replaces an earlier one as a whole. If `fill` fails, that one stays as it was.

    Args:
        folder: path of the folder.
        fill: function of the temporary path, an empty folder, which has the same name.
    """
    folder = pathlib.Path(folder).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=folder.parent) as work:
        partial, earlier = pathlib.Path(work, "new", folder.name), pathlib.Path(work, "earlier")
        partial.mkdir(parents=True)
        fill(partial)
        if folder.exists():
            os.rename(folder, earlier)
        try:
            os.rename(partial, folder)
        except BaseException:
            if earlier.exists():
                os.rename(earlier, folder)
            raise


def change_folder_whole(folder, change):
    """Change files of a folder at once, so that nobody ever sees some of them changed.

    Args:
        folder: path of the folder, which may be missing.
        change: function of a temporary path of the same name, a copy of the folder; see
            `write_folder_whole`.
    """
    def fill(partial):
        if os.path.isdir(folder):
            shutil.copytree(folder, partial, dirs_exist_ok=True)
        change(partial)

    write_folder_whole(folder, fill)


def read_json(path):
    """Return what a JSON file holds, read strictly: the file may be anybody's.

    Args:
        path: path of the file.

    Raises:
        ValueError: If the file is no UTF-8 or no JSON, has `NaN` or `Infinity`, which JSON does not
            know, or is nested too deeply.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}.") from error


def _refuse(constant):
    raise ValueError(f"{constant} is no number of JSON")


def sha256(path):
    """Return the sha256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
