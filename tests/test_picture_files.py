import io
import pickle
import struct

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from keras_adaptive.picture_files import (
    InputRule,
    UnreadablePicturesError,
    find_files,
    read_picture,
    read_pictures,
)

RULE = InputRule((8, 8), 3)


@pytest.fixture
def photo():
    """A picture 12 high and 20 wide, smooth so that JPEG keeps it."""
    rows, columns = np.mgrid[0:12, 0:20]
    return Image.fromarray(np.stack([rows * 10, columns * 10, rows * 0 + 90], -1).astype("uint8"))


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg", "gif", "tiff", "ppm"])
def test_common_formats_are_read(tmp_path, photo, suffix):
    """The format does not change what the network sees, but for compression."""
    path = tmp_path / f"photo.{suffix}"
    photo.save(path)

    picture = read_picture(path, RULE)

    assert picture.shape == (8, 8, 3) and picture.dtype == np.uint8
    expected = RULE.apply(photo).astype(int)
    assert np.abs(picture - expected).mean() < 8


def test_the_shorter_side_is_scaled_and_the_centre_kept():
    """A wide picture loses its sides, not its shape."""
    wide = np.zeros((10, 30, 3), "uint8")
    wide[:, 10:20] = 200

    assert (InputRule((10, 10), 3).apply(Image.fromarray(wide)) == 200).all()
    assert InputRule((4, 6), 3).apply(Image.fromarray(wide)).shape == (4, 6, 3)


@pytest.mark.parametrize("size, sides", [(224, (116, 492)), (299, range(1, 400, 7)), (32, (33,))])
def test_sides_that_division_rounds_up_are_read(size, sides):
    """The box of the centre does not reach over the picture by a rounding error."""
    for side in sides:
        for shape in ((side, side + 60), (side + 60, side), (side, side)):
            picture = Image.new("RGB", shape, (9, 9, 9))

            assert (InputRule((size, size), 3).apply(picture) == 9).all()


def test_shrinking_averages_instead_of_skipping():
    """A fine chessboard becomes grey."""
    board = ((np.indices((64, 64)).sum(axis=0) % 2) * 255).astype("uint8")

    small = RULE.apply(Image.fromarray(board))

    assert np.abs(small.astype(int) - 127).max() <= 3


def test_pictures_of_the_right_size_are_not_touched(photo):
    """What needs no resizing keeps every value, also under a rule without a size."""
    expected = np.asarray(photo)

    np.testing.assert_array_equal(InputRule((12, 20), 3).apply(photo), expected)
    np.testing.assert_array_equal(InputRule(None, 3).apply(photo), expected)


def test_photographs_lie_upright(tmp_path, photo):
    """A camera's EXIF note on orientation is followed."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo.save(tmp_path / "turned.png", exif=exif)

    picture = read_picture(tmp_path / "turned.png", InputRule(None, 3))

    np.testing.assert_array_equal(picture, np.rot90(np.asarray(photo), k=-1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_colour_becomes_rgb(tmp_path, mode):
    """Grey, palettes, print colours and deep greys end as three channels of eight bits."""
    if mode == "I;16":
        picture = Image.fromarray(np.full((8, 8), 200 * 257, "uint16"))
    else:
        picture = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    path = tmp_path / ("picture.tiff" if mode == "CMYK" else "picture.png")
    picture.save(path)

    decoded = read_picture(path, RULE)

    assert decoded.shape == (8, 8, 3)
    assert set(decoded.flatten().tolist()) == {200 if mode == "I;16" else 255}


def test_transparency_becomes_white(tmp_path):
    """What is see-through looks as on paper, with an alpha channel or a palette entry."""
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "alpha.png")
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette(list(range(30)))
    palette.save(tmp_path / "palette.png", transparency=3)

    for name in ("alpha.png", "palette.png"):
        assert (read_picture(tmp_path / name, RULE) == 255).all()


def test_grey_networks_get_one_channel(photo):
    """Colours are weighed as in television."""
    assert InputRule((8, 8), 1).apply(photo).shape == (8, 8, 1)


@pytest.fixture
def bad_files(tmp_path, photo):
    """One file for each way of being no picture, and words of what is said about it."""
    photo.save(tmp_path / "whole.png")
    photo.resize((300, 200)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    jpeg = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.zeros((4, 4), "float32")).save(tmp_path / "float.tiff")
    return {
        str(tmp_path / name): words for name, words in {
            "missing.png": "no such file",
            "cut.png": "cut short or damaged",
            "cut.jpg": "cut short or damaged",
            "text.png": "not a picture",
            "empty.png": "not a picture",
            "folder.png": "it is a folder",
            "float.tiff": "floating-point values: convert it",
        }.items()
    }


def test_all_bad_files_of_a_list_are_named_at_once(tmp_path, bad_files):
    """One error tells every file and its reason, before the first picture is handed out."""
    good = str(tmp_path / "whole.png")

    with pytest.raises(UnreadablePicturesError, match="7 of 8 files") as error:
        next(read_pictures([good, *bad_files], RULE))

    assert isinstance(error.value, ValueError)
    assert list(error.value.reasons) == list(bad_files)
    for path, words in bad_files.items():
        assert words in error.value.reasons[path]
        assert path in str(error.value)


def test_damage_found_on_the_way_stops_the_stream(tmp_path, bad_files):
    """Good pictures flow until the first bad one; then the rest of the list is only checked."""
    good = str(tmp_path / "whole.png")
    names = ["cut.png", "whole.png", "text.png"]
    stream = read_pictures([good, *(str(tmp_path / name) for name in names)], RULE)

    assert next(stream).shape == (8, 8, 3)
    with pytest.raises(UnreadablePicturesError, match="2 of 4 files"):
        next(stream)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [150, 50])
def test_decompression_bombs_are_refused(tmp_path, photo, monkeypatch, limit):
    """What pillow only warns of is an error here, like what it refuses itself."""
    photo.save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)

    with pytest.raises(UnreadablePicturesError, match=f"more than {limit} pixels"):
        read_picture(tmp_path / "large.png", RULE)


def test_what_a_program_would_run_is_no_picture(tmp_path, photo, monkeypatch):
    """A name that ends as a picture's does not hand PostScript to Ghostscript."""
    photo.save(tmp_path / "cat.png", "EPS")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: pytest.fail("it ran"))

    with pytest.raises(UnreadablePicturesError, match="it is not a picture in a format that is"):
        read_picture(tmp_path / "cat.png", RULE)


def test_a_photograph_of_two_frames_is_read(tmp_path, photo):
    """Phones write these under the name of a JPEG, pillow has another name for them."""
    photo.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[photo])

    assert read_picture(tmp_path / "photo.jpg", RULE).shape == (8, 8, 3)


def test_the_error_survives_a_process_boundary():
    """Workers hand errors on by pickling them."""
    error = UnreadablePicturesError({"a.png": "it is cut short"}, 2)

    copy = pickle.loads(pickle.dumps(error))

    assert str(copy) == str(error) and copy.reasons == error.reasons


def test_folders_are_searched_in_a_fixed_order(tmp_path, photo):
    """Sub-folders count, hidden files and other suffixes do not."""
    (tmp_path / "b" / ".cache").mkdir(parents=True)
    for name in ("c.PNG", "b/a.jpg", "a.webp", ".hidden.png", "b/.cache/x.png"):
        photo.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")

    found = find_files(tmp_path)

    assert found == [str(tmp_path / name) for name in ("a.webp", "b/a.jpg", "c.PNG")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="hold no pictures"):
        find_files(tmp_path / "empty")


def test_the_rule_is_read_from_a_model_record():
    """A record may leave out what is as usual."""
    record = {"size": [32, 48], "resize": "shorter_side_then_centre_crop",
              "interpolation": "bilinear"}

    assert InputRule.from_dict(record, 3) == InputRule((32, 48), 3, "bilinear")
    assert InputRule.from_dict({"size": [32, 48]}, 3) == InputRule((32, 48), 3, "bicubic")


@pytest.mark.parametrize(
    "record, message",
    [
        ({"size": [8, 8], "shrink": 0.9}, r"Received also: \['shrink'\]"),
        ({}, "height and width in pixels"),
        ({"size": [8]}, "height and width in pixels"),
        ({"size": [8, 0]}, "height and width in pixels"),
        ({"size": [8, 8], "resize": "stretch"}, "shorter_side_then_centre_crop"),
        ({"size": [8, 8], "interpolation": "area"}, "'bicubic', 'bilinear'"),
    ],
)
def test_unknown_rules_are_refused(record, message):
    """A rule that is not understood is not guessed at."""
    with pytest.raises(ValueError, match=message):
        InputRule.from_dict(record, 3)


def test_a_share_of_the_shorter_side_is_cut_out_of_the_centre():
    """As networks for ImageNet are tested: 224 of 256 pixels."""
    pixels = np.zeros((256, 384, 3), "uint8")
    pixels[16:-16, 80:-80] = 200
    rule = InputRule.from_dict({"size": [224, 224], "crop": 224 / 256}, 3)

    assert (rule.apply(Image.fromarray(pixels)) == 200).all()


@pytest.mark.parametrize("crop", [0, 1.5, "0.9", True])
def test_a_crop_that_is_no_share_is_refused(crop):
    with pytest.raises(ValueError, match="'crop'.* above 0 and at most 1. Received"):
        InputRule.from_dict({"size": [8, 8], "crop": crop}, 3)


def exif_bytes(orientation, *, is_odd):
    """EXIF data with an orientation, and perhaps a resolution that is a word, not a number."""
    entries = [struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)]
    if is_odd:
        entries.append(struct.pack(">HHI4s", 0x011A, 2, 4, b"big\0"))
    return (b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + b"".join(entries)
            + struct.pack(">I", 0))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("is_odd", [False, True])
def test_orientation_is_read_whatever_else_the_data_hold(photo, orientation, is_odd):
    """`ImageOps.exif_transpose` says what is right, where it can write the data anew."""
    file = io.BytesIO()
    photo.save(file, "JPEG", exif=exif_bytes(orientation, is_odd=False))
    with Image.open(file) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))

    file = io.BytesIO()
    photo.save(file, "JPEG", exif=exif_bytes(orientation, is_odd=is_odd))

    np.testing.assert_array_equal(read_picture(file, InputRule(None, 3)), expected)


def test_grey_values_of_32_bits_that_leave_white_open_are_refused():
    picture = Image.fromarray(np.full((4, 4), 200, "int32"))
    with pytest.raises(ValueError, match="whether white is 255 or"):
        InputRule(None, 1).apply(picture)
    deep = Image.fromarray(np.full((4, 4), 200 * 257, "int32"))
    assert (InputRule(None, 1).apply(deep) == 200).all()


def test_what_is_transparent_in_deep_grey_becomes_white(tmp_path):
    grey = Image.fromarray(np.array([[13107, 0, 65535]], "uint16"))
    grey.save(tmp_path / "deep.png", transparency=13107)
    with Image.open(tmp_path / "deep.png") as picture:
        picture.load()
        if "transparency" not in picture.info:  # as pillow writes it, it may be lost
            picture.info["transparency"] = 13107
        assert InputRule(None, 1).apply(picture)[0, :, 0].tolist() == [255, 0, 255]
