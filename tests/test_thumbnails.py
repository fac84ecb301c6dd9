"""A folder of pictures becomes a folder of thumbnails: whole, resumable, never mixed up."""

import os

import keras
import numpy as np
import pytest
from PIL import Image

from keras_adaptive import thumbnails
from keras_adaptive.shrinking import shrink
from keras_adaptive.thumbnails import (
    RECORD,
    SOURCES,
    ThumbnailFiles,
    encode,
    quantize,
    write_thumbnails,
)


def make_downscaler(size=None, factor=1.0):
    """Means of 2 x 2 pixels, times a factor: may leave 0..255, and is exact."""
    pictures = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(3, 2, strides=2, padding="same", use_bias=False)(pictures)
    model = keras.Model(pictures, x)
    model.set_weights([np.eye(3).reshape(1, 1, 3, 3).repeat(2, 0).repeat(2, 1) * factor / 4])
    return model


@pytest.fixture
def source(tmp_path):
    """Five pictures of two sizes in two folders, a grey one among them."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "cats" / "young").mkdir(parents=True)
    for name, shape in (("a.png", (8, 12, 3)), ("cats/b.bmp", (8, 8, 3)),
                        ("cats/c.png", (8, 12, 3)), ("cats/young/d.tiff", (8, 8)),
                        ("cats/young/e.PNG", (8, 8, 3))):
        Image.fromarray(rng.integers(0, 256, shape, "uint8")).save(folder / name)
    return folder


def _files(folder):
    """Return the files below a folder by their names in it, but for the records."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")
            if path.is_file() and path.name not in (RECORD, SOURCES)}


def _pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_rounding_is_that_of_the_definition():
    """Clipped and rounded half to even; in range, off by half a step at most."""
    unit = np.array([0, 0.5, 1.2, -0.1, 0.12345, 0.25, 0.002])

    values = quantize(unit * 255)

    assert values.tolist() == [0, 128, 255, 0, 31, 64, 1] and values.dtype == np.uint8
    assert np.abs(values / 255 - unit.clip(0, 1)).max() <= 0.5 / 255
    assert quantize(np.array([0.5, 1.5, 2.5])).tolist() == [0, 2, 2]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_every_picture_becomes_a_file_of_the_same_name(source, tmp_path, batch_size):
    """What the downscaler makes of a picture stands in its file, whatever else was in its batch."""
    done = write_thumbnails(source, tmp_path / "small", make_downscaler(factor=2),
                            batch_size=batch_size)

    assert done == ThumbnailFiles(5, 0, {})
    files = _files(tmp_path / "small")
    assert set(files) == {"a.png", "cats/b.png", "cats/c.png", "cats/young/d.png",
                          "cats/young/e.png"}
    for name, original in _files(source).items():
        picture = _pixels(original).astype("float64")
        means = picture.reshape(4, 2, -1, 2, 3).mean(axis=(1, 3)) * 2
        thumbnail = _pixels(files[os.path.splitext(name)[0] + ".png"])
        np.testing.assert_array_equal(thumbnail, quantize(means))


def test_a_network_of_one_size_gets_pictures_of_that_size(source, tmp_path):
    """They are scaled and cropped as the predictor does it."""
    write_thumbnails(source, tmp_path / "small", make_downscaler(6))

    assert {Image.open(path).size for path in _files(tmp_path / "small").values()} == {(3, 3)}


@pytest.mark.parametrize("method", ["area", "bicubic"])
def test_resizing_without_a_network(source, tmp_path, method):
    write_thumbnails(source, tmp_path / "small", ratio=4, method=method)

    for name in ("a", "cats/c"):
        np.testing.assert_array_equal(
            _pixels(tmp_path / "small" / f"{name}.png"),
            shrink(_pixels(source / f"{name}.png"), 4, method))


def test_a_saved_downscaler_does_the_same(source, tmp_path):
    """A `.keras` file is enough."""
    model = make_downscaler()
    model.save(tmp_path / "downscaler.keras")

    write_thumbnails(source, tmp_path / "one", model)
    write_thumbnails(source, tmp_path / "two", tmp_path / "downscaler.keras")

    one, two = (_files(tmp_path / name) for name in ("one", "two"))
    assert {name: path.read_bytes() for name, path in one.items()} == {
        name: path.read_bytes() for name, path in two.items()}


def test_jpeg_files_are_smaller_at_lower_quality(source, tmp_path):
    sizes = []
    for quality in (95, 20):
        folder = tmp_path / str(quality)
        write_thumbnails(source, folder, ratio=2, file_format="jpeg", quality=quality)
        assert {Image.open(path).format for path in _files(folder).values()} == {"JPEG"}
        assert set(map(os.path.splitext, _files(folder))) >= {("a", ".jpg")}
        sizes.append(sum(path.stat().st_size for path in _files(folder).values()))

    assert sizes[1] < sizes[0]


def test_a_sideways_photograph_lies_upright(tmp_path):
    """Also where its thumbnail cannot say so any more: it has no EXIF data."""
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8)).save(tmp_path / "photos" / "a.jpg", exif=exif)

    write_thumbnails(tmp_path / "photos", tmp_path / "small", ratio=2)

    with Image.open(tmp_path / "small" / "a.png") as thumbnail:
        assert thumbnail.size == (4, 8) and not dict(thumbnail.getexif())


def test_unreadable_files_are_named_and_the_rest_is_written(source, tmp_path):
    """A cut file and one that is no picture do not stop the others."""
    whole = (source / "cats" / "b.bmp").read_bytes()
    (source / "cats" / "cut.bmp").write_bytes(whole[:len(whole) // 2])
    (source / "text.jpg").write_text("no picture")

    done = write_thumbnails(source, tmp_path / "small", make_downscaler())

    assert done.written == 5 and done.skipped == 0
    assert set(done.unreadable) == {str(source / "cats" / "cut.bmp"), str(source / "text.jpg")}
    assert "not a picture" in done.unreadable[str(source / "text.jpg")]
    assert "2 files unreadable" in str(done)


def test_a_picture_too_small_for_a_thumbnail_is_named(source, tmp_path):
    """It does not stop the others."""
    Image.new("RGB", (1, 1)).save(source / "dot.png")
    pictures = keras.Input((None, None, 3))
    downscaler = keras.Model(pictures, keras.layers.AveragePooling2D(2)(pictures))

    done = write_thumbnails(source, tmp_path / "small", downscaler)

    assert done.written == 5
    assert done.unreadable == {
        str(source / "dot.png"): "too small for a thumbnail of one pixel or more"}


def test_damaged_records_and_downscalers_are_named(source, tmp_path):
    write_thumbnails(source, tmp_path / "small", ratio=2)
    (tmp_path / "small" / RECORD).write_text("{")
    (tmp_path / "bad.keras").write_text("no zip")

    with pytest.raises(ValueError, match=f"{RECORD} is damaged, so that nobody knows"):
        write_thumbnails(source, tmp_path / "small", ratio=2)
    with pytest.raises(ValueError, match="bad.keras is no .keras file that can be read"):
        write_thumbnails(source, tmp_path / "other", tmp_path / "bad.keras")


def test_a_second_run_does_only_what_is_missing_or_outdated(source, tmp_path):
    """A missing thumbnail and one older than its picture are made, the rest is left alone."""
    write_thumbnails(source, tmp_path / "small", ratio=2)
    (tmp_path / "small" / "a.png").unlink()
    outdated = tmp_path / "small" / "cats" / "b.png"
    os.utime(outdated, (1, 1))
    kept = tmp_path / "small" / "cats" / "c.png"
    before = kept.stat().st_mtime_ns

    done = write_thumbnails(source, tmp_path / "small", ratio=2)

    assert done == ThumbnailFiles(2, 3, {})
    assert (tmp_path / "small" / "a.png").is_file() and outdated.stat().st_mtime > 1
    assert kept.stat().st_mtime_ns == before


def test_a_thumbnail_of_another_picture_of_its_name_is_made_anew(source, tmp_path):
    """Whatever its age: the new picture may be older than the thumbnail."""
    write_thumbnails(source, tmp_path / "small", ratio=2)
    (source / "a.png").unlink()
    Image.new("RGB", (8, 8), "red").save(source / "a.bmp")
    Image.new("RGB", (8, 8), "blue").save(source / "cats" / "c.png")
    for path in (source / "a.bmp", source / "cats" / "c.png"):
        os.utime(path, (1, 1))

    assert write_thumbnails(source, tmp_path / "small", ratio=2) == ThumbnailFiles(2, 3, {})
    assert (_pixels(tmp_path / "small" / "a.png") == (255, 0, 0)).all()
    assert (_pixels(tmp_path / "small" / "cats" / "c.png") == (0, 0, 255)).all()
    assert write_thumbnails(source, tmp_path / "small", ratio=2).skipped == 5


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_where_nothing_is_known_of_the_pictures_all_are_made_anew(source, tmp_path, content):
    write_thumbnails(source, tmp_path / "small", ratio=2)
    (tmp_path / "small" / SOURCES).write_text(content)

    assert write_thumbnails(source, tmp_path / "small", ratio=2) == ThumbnailFiles(5, 0, {})
    assert write_thumbnails(source, tmp_path / "small", ratio=2).skipped == 5


def test_a_picture_that_became_damaged_has_no_thumbnail(source, tmp_path):
    write_thumbnails(source, tmp_path / "small", ratio=2)
    (source / "a.png").write_bytes((source / "a.png").read_bytes()[:60])

    done = write_thumbnails(source, tmp_path / "small", ratio=2)

    assert list(done.unreadable) == [str(source / "a.png")] and done.skipped == 4
    assert not (tmp_path / "small" / "a.png").exists()


def test_thumbnails_whose_pictures_were_taken_away_are_named(source, tmp_path):
    """They stay: another folder may have been written into the same destination."""
    write_thumbnails(source, tmp_path / "small", ratio=2)
    (source / "a.png").unlink()
    (source / "cats" / "c.png").unlink()
    (tmp_path / "small" / "cats" / "c.png").unlink()

    done = write_thumbnails(source, tmp_path / "small", ratio=2)

    assert done == ThumbnailFiles(0, 3, {}, (str(tmp_path / "small" / "a.png"),))
    assert str(done).endswith("1 of pictures that are no longer there")


def test_a_file_where_a_folder_is_needed_is_told_beforehand(source, tmp_path):
    (source / "x.png").mkdir()
    (source / "a.png").rename(source / "x.png" / "a.png")
    Image.new("RGB", (8, 8)).save(source / "x.jpg")

    with pytest.raises(ValueError, match=r"x\.jpg would become a file where .*a\.png needs a"):
        write_thumbnails(source, tmp_path / "small", ratio=2)
    assert not (tmp_path / "small").exists()


def test_an_interrupted_run_leaves_whole_files_and_goes_on(source, tmp_path, monkeypatch):
    """Stopped in the middle of writing, no half file stands under a thumbnail's name."""
    calls = []

    def fail_later(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(thumbnails, "encode", fail_later)
        with pytest.raises(KeyboardInterrupt):
            write_thumbnails(source, tmp_path / "small", ratio=2)
    files = _files(tmp_path / "small")
    assert len(files) == 2
    for path in files.values():
        Image.open(path).load()

    assert write_thumbnails(source, tmp_path / "small", ratio=2) == ThumbnailFiles(3, 2, {})


@pytest.mark.parametrize("other", [
    {"ratio": 4}, {"ratio": 2, "method": "bicubic"}, {"ratio": 2, "file_format": "jpeg"},
])
def test_thumbnails_of_two_kinds_do_not_get_mixed(source, tmp_path, other):
    """What was made otherwise is not taken for done."""
    write_thumbnails(source, tmp_path / "small", ratio=2)

    with pytest.raises(ValueError, match="made otherwise"):
        write_thumbnails(source, tmp_path / "small", **other)


def test_another_downscaler_is_noticed_by_its_weights(source, tmp_path):
    write_thumbnails(source, tmp_path / "small", make_downscaler())

    assert write_thumbnails(source, tmp_path / "small", make_downscaler()).skipped == 5
    with pytest.raises(ValueError, match="made otherwise"):
        write_thumbnails(source, tmp_path / "small", make_downscaler(factor=0.5))


def test_pictures_of_many_sizes_do_not_pile_up(source, tmp_path, monkeypatch):
    """What waits for others of its size is bounded; nothing is lost by that."""
    monkeypatch.setattr(thumbnails, "_MAX_PIXELS_WAITING", 150)

    assert write_thumbnails(source, tmp_path / "small", make_downscaler()).written == 5
    assert len(_files(tmp_path / "small")) == 5


def test_two_pictures_that_would_become_one_file_are_named(source, tmp_path):
    (source / "a.jpg").write_bytes((source / "a.png").read_bytes())

    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png would both become"):
        write_thumbnails(source, tmp_path / "small", ratio=2)


def test_a_folder_with_something_else_is_left_alone(source, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.png").write_text("mine")

    with pytest.raises(ValueError, match="Something else stands in"):
        write_thumbnails(source, tmp_path / "letters", ratio=2)
    assert (tmp_path / "letters" / "a.png").read_text() == "mine"


@pytest.mark.parametrize("arguments, message", [
    ({}, "one of `downscaler` and `ratio`"),
    ({"downscaler": "missing.keras"}, "no file missing.keras"),
    ({"downscaler": 3}, "Functional `keras.Model`"),
    ({"ratio": 1}, "2 or more"),
    ({"ratio": 2, "method": "aera"}, "Did you mean 'area'"),
    ({"ratio": 2, "file_format": "jpg"}, "Did you mean 'jpeg'"),
    ({"ratio": 2, "quality": 0}, "1 to 100"),
    ({"ratio": 2, "batch_size": 0}, "`batch_size`"),
])
def test_wrong_arguments_are_named_before_anything_is_written(source, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_thumbnails(source, tmp_path / "small", **arguments)
    assert not (tmp_path / "small").exists()


def test_networks_of_another_kind_are_refused(source, tmp_path):
    pictures = keras.Input((8, 8, 3))
    classifier = keras.Model(pictures, keras.layers.GlobalAveragePooling2D()(pictures))

    with pytest.raises(ValueError, match="gives thumbnails"):
        write_thumbnails(source, tmp_path / "small", classifier)
    with pytest.raises(ValueError, match="a downscaler has its own"):
        write_thumbnails(source, tmp_path / "small", make_downscaler(), method="bicubic")


def test_folders_inside_each_other_and_missing_ones_are_refused(source, tmp_path):
    for destination in (source, source / "small"):
        with pytest.raises(ValueError, match="lies outside of `source`"):
            write_thumbnails(source, destination, ratio=2)
    with pytest.raises(ValueError, match="which does not exist"):
        write_thumbnails(tmp_path / "nowhere", tmp_path / "small", ratio=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="hold no pictures"):
        write_thumbnails(tmp_path / "empty", tmp_path / "small", ratio=2)


def test_networks_without_weights_are_told_apart(tmp_path):
    """What resizes otherwise may not write among the thumbnails that are there."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(tmp_path / "photos" / "a.png")
    pictures = keras.Input((8, 8, 3))
    mean, largest = (keras.Model(pictures, pool(2)(pictures)) for pool in (
        keras.layers.AveragePooling2D, keras.layers.MaxPooling2D))
    write_thumbnails(tmp_path / "photos", tmp_path / "small", mean)

    assert write_thumbnails(tmp_path / "photos", tmp_path / "small", mean).skipped == 1
    with pytest.raises(ValueError, match="made otherwise"):
        write_thumbnails(tmp_path / "photos", tmp_path / "small", largest)
