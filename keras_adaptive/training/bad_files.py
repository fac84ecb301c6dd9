"""Which pictures could not be read: in memory, and in a file that outlives the run."""

import contextlib
import csv
import pathlib
import threading
import warnings

BAD_FILES = "bad_files.csv"  # in a run's folder


class BadPictures:
    """Pictures that could not be read, and grey ones, noted by the threads that met them."""

    def __init__(self):
        self.reasons = {}
        self.grey = set()  # names of those that were brought to RGB
        self.failures = []  # exceptions that ended the reading
        self._lock = threading.Lock()
        self._path = None
        self._written = set()

    def note(self, reasons):
        """Note what is wrong with pictures, a dict by their names."""
        with self._lock:
            self.reasons.update(reasons)
            self._write()

    def keep_in(self, path):
        """Write what is noted, so far and from now on, to a file.

        Args:
            path: path of a `.csv` file of the columns `file` and `reason`. What it lists already
                stays in it, and is not listed again. Bytes of names that are not UTF-8 are escaped.
        """
        with self._lock:
            self._path = pathlib.Path(path)
            self._written = _read(self._path)
            self._write()

    def _write(self):
        new = {name: reason for name, reason in self.reasons.items()
               if _escaped(name) not in self._written}
        if self._path is None or not new:
            return
        try:
            is_new = not self._path.exists()
            # Line by line as they are met: a run that is killed has named them.
            with open(self._path, "a", encoding="utf-8", errors="backslashreplace",
                      newline="") as file:
                csv.writer(file).writerows([("file", "reason")] * is_new + list(new.items()))
        except OSError as error:
            # Training is worth more than its list.
            warnings.warn(
                f"{self._path} cannot be written: {error}. Files that cannot be read are no longer "
                "listed there; the warning at the end names them.", stacklevel=2)
            self._path = None
            return
        self._written.update(map(_escaped, new))


def keep_bad_files(data, folder):
    """List the files that training cannot read in `bad_files.csv`, from the moment they are met.

    Args:
        data: `PhotographData`; of `Data`, which is in memory, nothing is listed.
        folder: path of the run's folder, which exists.
    """
    for part in (data.train, data.validation):
        if hasattr(part, "keep_bad_files"):
            part.keep_bad_files(pathlib.Path(folder) / BAD_FILES)


@contextlib.contextmanager
def raising_own_failure(data):
    """Raise what ended the reading of pictures itself where a backend raises something else for it.

    TensorFlow turns every exception of a pipeline into one whose message is a traceback.

    Args:
        data: `PhotographData`, whose pictures are read inside the `with` block, or `Data`.
    """
    noted = [part.failures for part in (data.train, data.validation) if hasattr(part, "failures")]
    for failures in noted:
        failures.clear()
    try:
        yield
    except Exception as error:
        first = next((failures[0] for failures in noted if failures), error)
        if first is error:
            raise
        raise first from error


def _read(path):
    if not path.exists():
        return set()
    with open(path, encoding="utf-8", errors="backslashreplace", newline="") as file:
        return {row[0] for row in csv.reader(file) if row}


def _escaped(name):
    """Return a file's name as the list shows it: Python keeps bytes that are no UTF-8 as halves of
    surrogate pairs, which no file of text takes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
