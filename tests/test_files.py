import os

import pytest

from keras_adaptive.files import write_folder_whole


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
        if source.name == "new":
            raise OSError("no space")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no space"):
        write_folder_whole(tmp_path / "here", _write("new.txt", "new"))

    assert (tmp_path / "here" / "old.txt").read_text() == "old"
