"""The list of files that cannot be read, whatever their names and the state of the disk."""

import csv
import os
import warnings

import pytest

from keras_adaptive.training.bad_files import BadPictures

LATIN_1 = os.fsdecode(b"caf\xe9, old.jpg")


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_name_that_is_not_utf_8_is_listed_once(tmp_path):
    """Escaped, and known again by a run that goes on."""
    path = tmp_path / "bad.csv"

    for _ in range(2):
        bad = BadPictures()
        bad.keep_in(path)
        bad.note({LATIN_1: "cut short"})
        bad.note({LATIN_1: "cut short"})

    assert rows(path) == [["file", "reason"], ["caf\\udce9, old.jpg", "cut short"]]
    assert bad.reasons == {LATIN_1: "cut short"}


def test_a_list_in_another_encoding_is_gone_on_with(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"file,reason\r\ncaf\xe9.jpg,empty\r\n")
    bad = BadPictures()

    bad.keep_in(path)
    bad.note({"b.jpg": "empty"})

    assert path.read_bytes().endswith(b"empty\r\nb.jpg,empty\r\n")


def test_a_list_that_cannot_be_written_is_told_once(tmp_path):
    """Training goes on: a full disk may leave room for the state all the same."""
    bad = BadPictures()
    bad.keep_in(tmp_path / "gone" / "bad.csv")

    with pytest.warns(UserWarning, match="bad.csv cannot be written.*no longer listed"):
        bad.note({"a.jpg": "empty"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bad.note({"b.jpg": "empty"})

    assert list(bad.reasons) == ["a.jpg", "b.jpg"]
