"""A manifest that travelled: it is read as it was written, or refused with a reason."""

import copy
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_adaptive.manifest import (
    FORMATS,
    MANIFEST,
    InputRecord,
    Manifest,
    StageFile,
    StageRecord,
    Tensor,
    is_export,
    read_stage_files,
)

CONTENTS = {"stage1.onnx": b"first", "stage2.onnx": b"second"}
PICTURES = Tensor("pictures", (None, 8, 8, 3), "float32")
FEATURES = Tensor("features", (None, 4, 4, 4), "float32")
PROBABILITIES = Tensor("probabilities", (None, 5), "float32")


def _file(name):
    return StageFile(name, hashlib.sha256(CONTENTS[name]).hexdigest(), len(CONTENTS[name]))


MANIFEST_OF_TWO = Manifest(
    package_version="0.1.0", name="network", format="onnx",
    stages=(StageRecord((_file("stage1.onnx"),), (PICTURES,), (FEATURES,), PROBABILITIES),
            StageRecord((_file("stage2.onnx"),), (FEATURES,), (), PROBABILITIES)),
    exits=(1, 3), num_exits=3, num_classes=5, class_names=("a", "b", "c", "d", "e"),
    input=InputRecord((8, 8, 3), rule={"size": [8, 8], "interpolation": "nearest"}),
    thresholds=(0.5, 0.6, 0.0), temperatures=(1.0, 1.5, 0.9), exit_macs=(10, 30), full_macs=40,
    source={"title": "A network", "paper": "none", "license": "MIT", "weights_sha256": "0" * 64})


@pytest.fixture
def folder(tmp_path):
    """An export of two stages, whose files nobody could run."""
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    MANIFEST_OF_TWO.write(tmp_path / MANIFEST)
    return tmp_path


def _edit(folder, place, value):
    record = json.loads((folder / MANIFEST).read_text())
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    (folder / MANIFEST).write_text(json.dumps(record))


def test_a_manifest_is_read_as_it_was_written(folder):
    """Nothing that was known of the network is lost on the way."""
    assert Manifest.from_file(folder / MANIFEST) == MANIFEST_OF_TWO
    assert [read_stage_files(folder, stage) for stage in MANIFEST_OF_TWO.stages] == [
        {"stage1.onnx": b"first"}, {"stage2.onnx": b"second"}]


FILE1 = ("stages", 0, "files", 0)


@pytest.mark.parametrize("place, value, message", [
    (("format_version",), 2, "expected `format_version` 1. Received: 2. Export the network again"),
    (("format_version",), KeyError, "expected `format_version` 1. Received: None"),
    (("threshold",), [1], "unknown key 'threshold'. Did you mean 'thresholds'?"),
    (("stages", 0, "inputs"), [], "stages, number 1: unknown key 'inputs'"),
    (("exits",), KeyError, r"the keys \['exits'\] are missing"),
    (("format",), "onx", "one of onnx, .* Received: 'onx'. Did you mean 'onnx'?"),
    (("format",), ["onnx"], "format: expected one of"),
    (("name",), 7, "name: expected text"),
    (("exits",), [3, 1], "exits: expected increasing numbers from 1 to 3"),
    (("exits",), [1, 4], "exits: expected increasing numbers"),
    (("exits",), [], "exits: expected increasing numbers"),
    (("exits",), [1, 2, 3], "stages: expected one per exit in use, 3"),
    (("num_exits",), True, "num_exits: expected a whole number"),
    (("num_classes",), 10**30, "num_classes: expected a whole number"),
    (("num_classes",), 4, "class_names: expected 4 names"),
    (("class_names",), "abcde", "class_names: expected a list"),
    (("thresholds",), [0.5, 0.6], "thresholds: expected null or 3 numbers"),
    (("thresholds",), [0.5, -1, 0], "thresholds: expected null or 3 numbers"),
    (("temperatures",), [1, 0, 1], "temperatures: expected null or 3 numbers"),
    (("exit_macs",), [30, 10], "exit_macs: expected 2 numbers that do not decrease"),
    (("full_macs",), 20, "full_macs: expected at least 30"),
    (("source", "license"), None, "source, license: expected text"),
    ((*FILE1, "path"), "../stage1.onnx", "files: expected the names"),
    ((*FILE1, "path"), "/etc/passwd", "files: expected the names"),
    ((*FILE1, "path"), "stage2.onnx", "files: expected the names"),
    ((*FILE1, "sha256"), "no", "sha256: expected 64 hexadecimal digits"),
    ((*FILE1, "size_bytes"), -1, "size_bytes: expected a whole number"),
    (("stages", 0, "files"), [], "files: expected the names"),
    (("stages", 0, "reads"), [], "number 1, reads: expected the pictures"),
    (("stages", 1, "reads", 0, "name"), "maps", "reads: expected what earlier stages made"),
    (("stages", 1, "reads", 0, "shape"), [None, 4, 4, 5], "reads: expected what earlier stages"),
    (("stages", 0, "makes", 0, "name"), "pictures", "makes: expected new names"),
    (("stages", 0, "makes", 0, "dtype"), "float8", "dtype: expected one of"),
    (("stages", 0, "makes", 0, "shape"), [None, 2**40, 2**40], "at most 134,217,728 values"),
    (("stages", 0, "makes", 0, "shape"), [2, 4], "begins with null, the batch"),
    (("stages", 0, "output", "shape"), [None, 6], "output: expected float32"),
    (("input", "shape"), [2**20, 2**20, 3], "input, shape: expected at most"),
    (("input", "shape"), [8, 8], "expected height, width and channels"),
    (("input", "layout"), "NCHW", "input, layout: expected 'NHWC'"),
    (("input", "value_range"), [0, 1], "input, value_range"),
    (("input", "rule", "size"), [2**20, 2**20], "input, rule, size: expected at most"),
    (("input", "rule", "shrink"), True, "input, rule: expected null or an object"),
    (("input", "rule", "crop"), True, "input, rule, crop: expected a share above 0"),
    (("input", "rule", "crop"), 1.5, "input, rule, crop: expected a share above 0"),
])
def test_a_manifest_that_does_not_hold_together_is_refused(folder, place, value, message):
    """The message names file and entry, and what to do."""
    _edit(folder, place, value)

    with pytest.raises(ValueError, match=message) as error:
        Manifest.from_file(folder / MANIFEST)
    assert str(folder / MANIFEST) in str(error.value)


@pytest.mark.parametrize("content", [
    b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"format_version": NaN}',
])
def test_what_is_no_manifest_is_refused(folder, content):
    """Cut, binary, endlessly nested: one error each, that says what to do."""
    (folder / MANIFEST).write_bytes(content)

    with pytest.raises(ValueError, match="[Ee]xport.* again"):
        Manifest.from_file(folder / MANIFEST)


def test_a_folder_without_manifest_is_told(tmp_path):
    """Who names the wrong folder learns what makes a right one."""
    with pytest.raises(ValueError, match="is no export. `export_stages` makes one"):
        Manifest.from_file(tmp_path / MANIFEST)


def test_a_manifest_too_large_to_be_one_is_not_read(folder):
    """A huge file costs no memory."""
    with open(folder / MANIFEST, "wb") as file:
        file.truncate(2**25)

    with pytest.raises(ValueError, match="which no manifest has"):
        Manifest.from_file(folder / MANIFEST)


def _places(record, place=()):
    items = (record.items() if isinstance(record, dict)
             else enumerate(record) if isinstance(record, list) else ())
    for key, value in items:
        yield (*place, key)
        yield from _places(value, (*place, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3), max_leaves=5)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_is_accepted_or_refused_but_never_breaks(tmp_path_factory, data):
    """Whatever stands at whatever place, the reader answers with a manifest or a `ValueError`."""
    folder = tmp_path_factory.getbasetemp()
    MANIFEST_OF_TWO.write(folder / MANIFEST)
    record = json.loads((folder / MANIFEST).read_text())
    place = data.draw(st.sampled_from(list(_places(copy.deepcopy(record)))))
    _edit(folder, place, data.draw(JSON))

    try:
        Manifest.from_file(folder / MANIFEST)
    except ValueError as error:
        assert MANIFEST in str(error)


@pytest.mark.parametrize("damage, message", [
    (lambda folder: (folder / "stage1.onnx").write_bytes(b"fir"), "has 3 bytes, expected 5 bytes"),
    (lambda folder: (folder / "stage1.onnx").write_bytes(b"First"), "has sha256 .* expected 5"),
    (lambda folder: (folder / "stage1.onnx").unlink(), "is missing"),
    (lambda folder: (folder / "stage2.onnx").replace(folder / "stage1.onnx"), "has 6 bytes"),
])
def test_files_that_are_not_the_exported_ones_are_refused(folder, damage, message):
    """Cut, changed, lost or swapped: no byte of it is parsed, and the cure is told."""
    damage(folder)

    with pytest.raises(ValueError, match=message) as error:
        read_stage_files(folder, MANIFEST_OF_TWO.stages[0])
    assert "stage1.onnx" in str(error.value) and "export again" in str(error.value)


def test_an_export_is_known_by_its_files(folder):
    """Only a folder that holds nothing else may be replaced; a damaged export may."""
    (folder / "stage1.onnx").unlink()
    assert is_export(folder)

    (folder / "notes.txt").write_text("mine")
    assert not is_export(folder)


def test_another_programs_manifest_is_no_export(tmp_path):
    """A folder is not replaced because a file in it has a common name."""
    (tmp_path / MANIFEST).write_text('{"name": "web app"}')
    assert not is_export(tmp_path)


def test_every_format_has_a_file_per_stage():
    """Names differ from stage to stage, so that no file serves two."""
    from keras_adaptive.manifest import FILES

    for format in FORMATS:
        names = [name.format(number) for number in (1, 2) for name in FILES[format]]
        assert len(set(names)) == len(names)
