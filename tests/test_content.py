"""Content is found, files are written whole, and packaging names every package."""

import configparser
import pathlib

import pytest

from keras_adaptive import content, files
from keras_adaptive.names import did_you_mean

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("kind", ["zoo", "recipes"])
def test_a_checkout_is_read_where_its_folders_stand(kind):
    """Edits at the top level count at once; nothing is copied into the package."""
    assert content.folder(kind) == REPOSITORY / kind


def test_an_installed_package_reads_its_own_content(tmp_path, monkeypatch):
    """A folder that happens to lie beside the installed package is not taken for its content."""
    package = tmp_path / "site-packages" / "keras_adaptive"
    (package / "_content" / "zoo").mkdir(parents=True)
    (package.parent / "zoo").mkdir()
    monkeypatch.setattr(content, "_PACKAGE", package)

    assert content.folder("zoo") == package / "_content" / "zoo"


def test_missing_content_is_an_error_that_names_the_places(tmp_path, monkeypatch):
    """Whoever installed half a package learns where its content was looked for."""
    monkeypatch.setattr(content, "_PACKAGE", tmp_path / "keras_adaptive")

    with pytest.raises(FileNotFoundError, match="recipes.*install keras_adaptive again"):
        content.folder("recipes")


def test_every_package_is_named_in_setup_cfg():
    """The list is explicit because `zoo` and `recipes` are mapped; it must not go stale."""
    options = configparser.ConfigParser()
    options.read(REPOSITORY / "setup.cfg")
    named = set(options["options"]["packages"].split())

    packages = {".".join(path.parent.relative_to(REPOSITORY).parts)
                for path in (REPOSITORY / "keras_adaptive").rglob("__init__.py")}

    assert named == packages | {"keras_adaptive._content.zoo", "keras_adaptive._content.recipes"}


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    """Neither half a file nor a temporary one is left behind."""
    path = tmp_path / "record.json"
    files.write_whole(path, lambda partial: partial.write_text("first"))

    def fail(partial):
        partial.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        files.write_whole(path, fail)

    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_beside_it_is_left_alone(tmp_path):
    """Whatever its name: temporary ones are nobody's, and hidden."""
    (tmp_path / "partial.zebra.png").write_text("somebody's")
    seen = []

    def fill(partial):
        seen.extend(path.name for path in tmp_path.iterdir())
        partial.write_text("zebra")
    files.write_whole(tmp_path / "zebra.png", fill)
    files.write_whole(tmp_path / ("z" * 251 + ".png"), fill)  # as long as a name can be

    assert (tmp_path / "partial.zebra.png").read_text() == "somebody's"
    assert all(name.startswith(".") for name in set(seen) - {"partial.zebra.png", "zebra.png"})
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    """And a file in that of a folder, before hours of work."""
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a folder. Give the name of a file, such as"):
        files.check_is_no_folder(tmp_path)
    with pytest.raises(ValueError, match="is a file. Give the name of a folder"):
        files.check_is_no_file(tmp_path / "file")
    files.check_is_no_folder(tmp_path / "file")
    files.check_is_no_file(tmp_path)


def test_sha256_is_that_of_the_bytes(tmp_path):
    """The digest is the one that `sha256sum` prints (FIPS 180-2, appendix B.1)."""
    path = tmp_path / "abc"
    path.write_bytes(b"abc")

    assert files.sha256(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_only_near_names_are_suggested():
    """A suggestion that has nothing to do with the question would mislead."""
    assert did_you_mean("ranet_cifar", ["ranet_cifar10"]) == " Did you mean 'ranet_cifar10'?"
    assert did_you_mean("xyz", ["ranet_cifar10"]) == ""
