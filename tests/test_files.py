import os

import pytest

from keras_adaptive.files import change_folder_whole, read_json, write_folder_whole


def _write(name, text):
    return lambda folder: (folder / name).write_text(text)


def test_a_folder_replaces_the_earlier_one_as_a_whole(tmp_path):
    """Nothing of the earlier folder is left, and nothing temporary lies beside it."""
    write_folder_whole(tmp_path / "made" / "here", _write("old.txt", "old"))

    write_folder_whole(tmp_path / "made" / "here", _write("new.txt", "new"))

    assert [path.name for path in tmp_path.rglob("*")] == ["made", "here", "new.txt"]


@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_an_interrupted_folder_leaves_the_earlier_one(tmp_path, failure):
    """Whatever stops the writing, what stood there before stands there still."""
    def interrupted(folder):
        (folder / "new.txt").write_text("half")
        raise failure

    write_folder_whole(tmp_path / "here", _write("old.txt", "old"))

    with pytest.raises(failure):
        write_folder_whole(tmp_path / "here", interrupted)

    assert [path.name for path in tmp_path.rglob("*")] == ["here", "old.txt"]


def test_files_of_a_folder_change_at_once_and_the_others_stay(tmp_path):
    """In the copy, which is called as the folder is; after an error all is as before."""
    def change(partial):
        assert (partial.name, (partial / "old.txt").read_text()) == ("here", "old")
        (partial / "new.txt").write_text("new")
        assert not (tmp_path / "here" / "new.txt").exists()

    write_folder_whole(tmp_path / "here", _write("old.txt", "old"))

    with pytest.raises(ZeroDivisionError):
        change_folder_whole(tmp_path / "here", lambda partial: change(partial) or 1 / 0)
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "old.txt"]
    change_folder_whole(tmp_path / "here", change)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "new.txt", "old.txt"]


def test_a_first_folder_that_fails_leaves_nothing(tmp_path):
    """Half of a folder never has its name."""
    with pytest.raises(ZeroDivisionError):
        write_folder_whole(tmp_path / "here", lambda folder: 1 / 0)

    assert not list(tmp_path.iterdir())


def test_an_earlier_folder_comes_back_if_the_new_one_cannot_be_put_there(tmp_path, monkeypatch):
    """Also in the moment of the exchange nothing is lost."""
    write_folder_whole(tmp_path / "here", _write("old.txt", "old"))
    rename = os.rename

    def failing(source, target):
        if source.parent.name == "new":
            raise OSError("no space")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no space"):
        write_folder_whole(tmp_path / "here", _write("new.txt", "new"))

    assert (tmp_path / "here" / "old.txt").read_text() == "old"


@pytest.mark.parametrize("content", [
    b"", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}', b"[Infinity]",
])
def test_what_is_no_json_is_refused_by_name(tmp_path, content):
    """Cut, binary, endlessly nested, or numbers that only Python has: one error."""
    (tmp_path / "a.json").write_bytes(content)

    with pytest.raises(ValueError, match="a.json is no valid JSON"):
        read_json(tmp_path / "a.json")


def test_json_is_read_as_utf_8(tmp_path):
    (tmp_path / "a.json").write_bytes('{"é": [1, null]}'.encode())

    assert read_json(tmp_path / "a.json") == {"é": [1, None]}
