"""The record of exported stages, `manifest.json`: strictly read, because files travel.

Digests tell damaged and mixed-up files. They do not tell who made a folder: a network is a program,
and whoever may change the files may change the manifest too.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
import re

from keras_adaptive.files import read_json
from keras_adaptive.names import check_keys, did_you_mean

MANIFEST = "manifest.json"
FORMAT_VERSION = 1

# The files of a stage, `{}` its number. The first is always there.
FILES = {
    "onnx": ("stage{}.onnx",),
    "openvino": ("stage{}.xml", "stage{}.bin"),
    "saved_model": (
        "stage{}/saved_model.pb",
        "stage{}/fingerprint.pb",
        "stage{}/variables/variables.index",
        "stage{}/variables/variables.data-00000-of-00001",
    ),
    "litert": ("stage{}.tflite",),
}
FORMATS = tuple(FILES)
_STAGE_NAME = r"stage\d+(\.(onnx|xml|bin|tflite))?"

_MAX_BYTES = 2**24  # of the manifest itself
_MAX_VALUES = 2**27  # of one picture's tensor: nothing is made room for because a file says so
_DTYPES = ("bfloat16", "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64",
           "uint8", "uint16", "uint32", "uint64")
_RULE_KEYS = ("size", "resize", "interpolation", "crop")
_SOURCE_KEYS = ("title", "paper", "license", "weights_sha256")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What passes into or out of a stage."""

    name: str
    shape: tuple  # the batch first, as None
    dtype: str


@dataclasses.dataclass(frozen=True)
class StageFile:
    """A file of a stage, its path in the folder with `/` in it."""

    path: str
    sha256: str
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """A stage: its files, and the tensors that it takes and gives.

    Attributes:
        files: tuple of `StageFile`.
        reads: tuple of `Tensor`: the pictures for the first stage; for the others, what they need
            of what earlier stages made.
        makes: tuple of `Tensor`, what a later stage reads.
        output: `Tensor`, the probabilities.
    """

    files: tuple
    reads: tuple
    makes: tuple
    output: Tensor


@dataclasses.dataclass(frozen=True)
class InputRecord:
    """What the network takes.

    Attributes:
        shape: tuple of height, width and channels.
        dtype: string.
        layout: `"NHWC"`.
        value_range: `(0, 255)`.
        rule: dict or `None`. How files are brought to that size; see `InputRule`.
    """

    shape: tuple
    dtype: str = "float32"
    layout: str = "NHWC"
    value_range: tuple = (0, 255)
    rule: dict | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything that is known of exported stages.

    Attributes:
        package_version: string. The version of this package that wrote it.
        name: string, of the network.
        format: string, one of `FORMATS`.
        stages: tuple of `StageRecord`, in order.
        exits: tuple of ints. The exits in use, one per stage, counted from 1.
        num_exits: int. Exits of the network, in use or not.
        num_classes: int.
        class_names: tuple of strings or `None`.
        input: `InputRecord`.
        thresholds: tuple of floats or `None`, one per exit of the network.
        temperatures: tuple of floats or `None`, one per exit of the network.
        exit_macs: tuple of ints, one per exit in use. Multiply-adds of a picture that leaves there.
        full_macs: int. Multiply-adds of the whole network.
        source: dict or `None`. Title, paper, licence and digest of the weights, for a network of
            the zoo.
        format_version: int, of the manifest.
    """

    package_version: str
    name: str
    format: str
    stages: tuple
    exits: tuple
    num_exits: int
    num_classes: int
    class_names: tuple | None
    input: InputRecord
    thresholds: tuple | None
    temperatures: tuple | None
    exit_macs: tuple
    full_macs: int
    source: dict | None
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_file(cls, path):
        """Read what `write` wrote.

        Args:
            path: path of a `manifest.json`.

        Raises:
            ValueError: If the file is no such manifest: no JSON, of another version of the format,
                with unknown, missing or malformed entries, or with entries that contradict each
                other.
        """
        record = _read(pathlib.Path(path))
        if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
            found = record.get("format_version") if isinstance(record, dict) else None
            raise ValueError(
                f"{path}: expected `format_version` {FORMAT_VERSION}. Received: {found!r}. Export "
                "the network again, or install the version of keras_adaptive that wrote the folder."
            )
        return _Reader(path).manifest(record)

    def write(self, path):
        """Write the manifest to `path`."""
        record = dataclasses.asdict(self)
        record = {"format_version": record.pop("format_version"), **record}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        pathlib.Path(path).write_text(text, encoding="utf-8")


def is_export(folder):
    """Return whether a folder is an export, sound or damaged, and holds nothing else.

    Args:
        folder: path.
    """
    manifest = pathlib.Path(folder) / MANIFEST
    if not manifest.is_file() or b'"format_version"' not in manifest.read_bytes():
        return False
    return all(entry.name == MANIFEST or re.fullmatch(_STAGE_NAME, entry.name)
               for entry in manifest.parent.iterdir())


def read_stage_files(folder, stage):
    """Return the contents of a stage's files, after their sizes and digests were found right.

    Args:
        folder: path of the export.
        stage: `StageRecord`.

    Returns:
        Dict from path in the folder to bytes.

    Raises:
        ValueError: If a file is missing, or is not the one that was exported.
    """
    return {file.path: _read_checked(pathlib.Path(folder), file) for file in stage.files}


def _read_checked(folder, file):
    path = folder / file.path
    if not path.is_file():
        raise ValueError(
            f"{path} is missing. The folder was copied in part; copy all of it, or export again.")
    size_bytes = path.stat().st_size
    content = path.read_bytes() if size_bytes == file.size_bytes else b""
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256 or size_bytes != file.size_bytes:
        found = f"sha256 {digest}" if size_bytes == file.size_bytes else f"{size_bytes:,} bytes"
        raise ValueError(
            f"{path} has {found}, expected {file.size_bytes:,} bytes with sha256 {file.sha256}. "
            "The file was cut short, changed, or belongs to another export; copy the whole folder "
            "again, or export again."
        )
    return content


def _read(path):
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist, so {path.parent} is no export. `export_stages` makes one.")
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes, which no manifest has. Export again.")
    try:
        return read_json(path)
    except ValueError as error:
        raise ValueError(f"{error} Export again.") from error


class _Reader:
    """Turns the entries of one file into records; every complaint names the file and the entry."""

    def __init__(self, path):
        self._path = path

    def manifest(self, record):
        self._keys("", record, Manifest)
        format = record["format"]
        if not isinstance(format, str) or format not in FORMATS:
            self._fail("format", f"one of {', '.join(FORMATS)}", format,
                       did_you_mean(format, FORMATS))
        num_exits = self._count("num_exits", record["num_exits"])
        exits = tuple(self._count("exits", number) for number in self._list("exits", record))
        if not exits or list(exits) != sorted(set(exits)) or exits[-1] > num_exits:
            self._fail("exits", f"increasing numbers from 1 to {num_exits}", record["exits"])
        stages = tuple(self._stage(number, stage, format) for number, stage
                       in enumerate(self._list("stages", record), start=1))
        if len(stages) != len(exits):
            self._fail("stages", f"one per exit in use, {len(exits)}", len(stages))
        num_classes = self._count("num_classes", record["num_classes"], least=2)
        exit_macs = tuple(self._count("exit_macs", value, least=0)
                          for value in self._list("exit_macs", record))
        full_macs = self._count("full_macs", record["full_macs"])
        if len(exit_macs) != len(exits) or list(exit_macs) != sorted(exit_macs):
            self._fail("exit_macs", f"{len(exits)} numbers that do not decrease",
                       record["exit_macs"])
        if exit_macs[-1] > full_macs:
            self._fail("full_macs", f"at least {exit_macs[-1]}, the last exit's", full_macs)
        manifest = Manifest(**{
            **record,
            "package_version": self._text("package_version", record["package_version"]),
            "name": self._text("name", record["name"]),
            "stages": stages,
            "exits": exits,
            "num_exits": num_exits,
            "num_classes": num_classes,
            "class_names": self._class_names(record, num_classes),
            "input": self._input(record["input"]),
            "thresholds": self._numbers("thresholds", record, num_exits, lambda x: x >= 0),
            "temperatures": self._numbers("temperatures", record, num_exits, lambda x: x > 0),
            "exit_macs": exit_macs,
            "full_macs": full_macs,
            "source": self._source(record["source"]),
        })
        self._check_tensors(manifest)
        return manifest

    def _stage(self, number, record, format):
        where = f"stages, number {number}"
        self._keys(where, record, StageRecord)
        names = [name.format(number) for name in FILES[format]]
        files = tuple(self._file(where, file) for file in self._list("files", record, where))
        paths = [file.path for file in files]
        # The names are known: so no other file, here or elsewhere, can be meant.
        if paths[:1] != names[:1] or paths != [name for name in names if name in paths]:
            self._fail(f"{where}, files", f"the names {names}, in this order", paths)
        reads, makes = (
            tuple(self._tensor(f"{where}, {key}", tensor)
                  for tensor in self._list(key, record, where))
            for key in ("reads", "makes")
        )
        return StageRecord(files, reads, makes, self._tensor(f"{where}, output", record["output"]))

    def _file(self, where, record):
        where = f"{where}, files"
        self._keys(where, record, StageFile)
        digest = record["sha256"]
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            self._fail(f"{where}, sha256", "64 hexadecimal digits", digest)
        size_bytes = self._count(f"{where}, size_bytes", record["size_bytes"], least=0)
        return StageFile(self._text(f"{where}, path", record["path"]), digest, size_bytes)

    def _tensor(self, where, record):
        self._keys(where, record, Tensor)
        shape = record["shape"]
        if not isinstance(shape, list) or not shape or shape[0] is not None:
            self._fail(f"{where}, shape", "a list of sizes that begins with null, the batch", shape)
        sizes = self._sizes(f"{where}, shape", shape[1:])
        return Tensor(self._text(f"{where}, name", record["name"]), (None, *sizes),
                      self._dtype(f"{where}, dtype", record["dtype"]))

    def _input(self, record):
        self._keys("input", record, InputRecord)
        shape = self._sizes("input, shape", record["shape"])
        if len(shape) != 3:
            self._fail("input, shape", "height, width and channels", record["shape"])
        for key, value in (("layout", "NHWC"), ("value_range", [0, 255])):
            if record[key] != value:
                self._fail(f"input, {key}", repr(value), record[key])
        rule = record["rule"]
        if rule is not None:
            if not isinstance(rule, dict) or set(rule) - set(_RULE_KEYS):
                self._fail("input, rule", f"null or an object with keys of {_RULE_KEYS}", rule)
            if len(self._sizes("input, rule, size", rule.get("size"))) != 2:
                self._fail("input, rule, size", "height and width", rule["size"])
            crop = rule.get("crop", 1.0)
            if type(crop) not in (int, float) or not 0 < crop <= 1:
                self._fail("input, rule, crop", "a share above 0 and at most 1", crop)
        return InputRecord(shape, self._dtype("input, dtype", record["dtype"]), "NHWC", (0, 255),
                           rule)

    def _class_names(self, record, num_classes):
        if record["class_names"] is None:
            return None
        names = tuple(self._text("class_names", name) for name in self._list("class_names", record))
        if len(names) != num_classes:
            self._fail("class_names", f"{num_classes} names, one per class", len(names))
        return names

    def _source(self, record):
        if record is None:
            return None
        check_keys(f"{self._path}, source", record, _SOURCE_KEYS)
        return {key: self._text(f"source, {key}", value) for key, value in record.items()}

    def _check_tensors(self, manifest):
        """Each stage reads what there is; the first reads pictures, all give probabilities."""
        known = {}
        for number, stage in enumerate(manifest.stages, start=1):
            where = f"stages, number {number}"
            if number == 1:
                pictures = (None, *manifest.input.shape), manifest.input.dtype
                found = [(tensor.shape, tensor.dtype) for tensor in stage.reads]
                if found != [pictures]:
                    self._fail(f"{where}, reads", f"the pictures, {pictures}", found)
                known = {tensor.name: tensor for tensor in stage.reads}
            for tensor in stage.reads:
                if known.get(tensor.name) != tensor:
                    self._fail(f"{where}, reads",
                               f"what earlier stages made: {list(known.values())}", tensor)
            for tensor in stage.makes:
                if tensor.name in known:
                    self._fail(f"{where}, makes", "new names", tensor.name)
                known[tensor.name] = tensor
            output = stage.output.shape, stage.output.dtype
            if output != ((None, manifest.num_classes), "float32"):
                self._fail(f"{where}, output", f"float32, [null, {manifest.num_classes}]", output)

    def _keys(self, where, record, kind):
        known = [field.name for field in dataclasses.fields(kind)]
        check_keys(f"{self._path}, {where}" if where else self._path, record, known)

    def _list(self, key, record, where=""):
        if not isinstance(record[key], list):
            self._fail(f"{where}, {key}" if where else key, "a list", record[key])
        return record[key]

    def _text(self, where, value):
        if not isinstance(value, str):
            self._fail(where, "text", value)
        return value

    def _count(self, where, value, least=1):
        if type(value) is not int or not least <= value < 2**63:
            self._fail(where, f"a whole number of {least} or more", value)
        return value

    def _sizes(self, where, values):
        if not isinstance(values, list):
            self._fail(where, "a list of sizes", values)
        sizes = tuple(self._count(where, value) for value in values)
        if math.prod(sizes) > _MAX_VALUES:
            self._fail(where, f"at most {_MAX_VALUES:,} values", sizes)
        return sizes

    def _dtype(self, where, value):
        if value not in _DTYPES:
            self._fail(where, f"one of {', '.join(_DTYPES)}", value)
        return value

    def _numbers(self, key, record, num_exits, is_valid):
        if record[key] is None:
            return None
        values = self._list(key, record)
        if len(values) != num_exits or not all(
                type(value) in (int, float) and math.isfinite(value) and is_valid(value)
                for value in values):
            self._fail(key, f"null or {num_exits} numbers, one per exit", values)
        return tuple(float(value) for value in values)

    def _fail(self, where, expected, received, hint=""):
        raise ValueError(
            f"{self._path}, {where}: expected {expected}. Received: {received!r:.200}.{hint} "
            "Export the network again."
        )
