import itertools

import grain
import keras
import numpy as np
import pytest
from PIL import Image

from keras_adaptive.inference import images as images_module
from keras_adaptive.inference.images import open_pictures, rebatch
from keras_adaptive.picture_files import InputRule

RULE = InputRule((8, 8), 3)


class Batches(keras.utils.PyDataset):
    def __init__(self, pictures, size=16):
        super().__init__()
        self.pictures, self.size = pictures, size

    def __len__(self):
        return -(-len(self.pictures) // self.size)

    def __getitem__(self, index):
        batch = self.pictures[index * self.size:(index + 1) * self.size]
        return batch, np.zeros(len(batch))


def in_one_buffer(pictures, size):
    """Yield the same array again and again, with other pictures in it."""
    buffer = np.zeros_like(pictures[:size])
    for start in range(0, len(pictures), size):
        batch = pictures[start:start + size]
        buffer[:len(batch)] = batch
        yield buffer[:len(batch)]


def read(images, rule=RULE):
    arrays = list(open_pictures(images, rule).arrays)
    return np.concatenate(arrays) if arrays else np.zeros((0, 8, 8, 3))


ARRAYS = {
    "batch": lambda x: x,
    "floats": lambda x: x.astype("float32"),
    "half precision": lambda x: x.astype("float16"),
    "integers": lambda x: x.astype("int64"),
    "tensor": lambda x: keras.ops.convert_to_tensor(x),
    "list": list,
    "tuple of floats": lambda x: tuple(x.astype("float32")),
    "generator of batches": lambda x: iter(np.array_split(x, 5)),
    "generator of pictures": iter,
    "generator with labels": lambda x: ((part, None) for part in np.array_split(x, 5)),
    "generator of lists": lambda x: ([part, 0] for part in np.array_split(x, 5)),
    "generator with ragged labels": lambda x: ((picture, [[1], [2, 3]]) for picture in x),
    "generator with one buffer": lambda x: in_one_buffer(x, 3),
    "PyDataset": Batches,
    "grain map": lambda x: grain.MapDataset.source(x).batch(6),
    "grain map of pairs": lambda x: grain.MapDataset.source(x).map(lambda p: (p, 1)).batch(6),
    "grain iterator": lambda x: grain.MapDataset.source(x).to_iter_dataset().batch(6),
    "grain pictures": lambda x: grain.MapDataset.source(x),
    "pillow pictures": lambda x: [Image.fromarray(picture) for picture in x],
}


@pytest.mark.parametrize("form", ARRAYS)
def test_pictures_come_in_many_forms(images, form):
    """Whatever holds the pictures, the same values come out in the same order."""
    pictures = read(ARRAYS[form](images))

    np.testing.assert_array_equal(pictures, images)


def test_batches_of_a_reused_buffer_keep_their_values(images):
    """Whatever the generator writes while pictures wait for a full batch, or for a later stage."""
    arrays = open_pictures(in_one_buffer(images, 3), RULE).arrays

    batches = list(rebatch(arrays, 7))

    np.testing.assert_array_equal(np.concatenate(batches), images)


def test_large_elements_are_copied_in_parts(monkeypatch):
    """One that is mapped from a file may not fit in memory."""
    monkeypatch.setattr(images_module, "_COPIED_ROWS", 3)
    pictures = np.arange(8 * 2 * 2 * 3, dtype="uint8").reshape(8, 2, 2, 3)

    arrays = list(open_pictures(iter([pictures]), RULE).arrays)

    assert [len(array) for array in arrays] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate(arrays), pictures)


def test_a_length_that_is_not_known_is_no_error(images):
    """As that of a PyTorch `DataLoader` over an iterable data set."""
    class Loader:
        def __iter__(self):
            return iter(np.array_split(images, 5))

        def __len__(self):
            raise TypeError("object of type 'Stream' has no len()")

    np.testing.assert_array_equal(read(Loader()), images)


@pytest.mark.parametrize("element", [list, tuple])
def test_several_pictures_in_one_element_are_not_taken_for_labels(images, element):
    """A tuple is (pictures, labels): pictures in the place of labels would be lost in silence."""
    with pytest.raises(ValueError, match="holds 3 single pictures.*np.stack"):
        read(iter([element(images[:3])]))


def test_an_empty_element_is_an_error():
    with pytest.raises(ValueError, match="Element 0 of the data set is empty"):
        read(iter([()]))


@pytest.mark.parametrize("batch_size", [None, 6])
def test_tensorflow_datasets(images, batch_size):
    """With labels or without, batched or not, on every backend."""
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((images, np.zeros(len(images))))
    plain = dataset.map(lambda picture, label: picture)
    for data in (dataset, plain):
        data = data if batch_size is None else data.batch(batch_size)
        np.testing.assert_array_equal(read(data), images)
    with pytest.raises(ValueError, match="never ends"):
        open_pictures(dataset.repeat(), RULE)


def test_data_sets_without_end_are_refused(images):
    """A prediction of infinitely many pictures would never return."""
    with pytest.raises(ValueError, match="never ends.*`repeat`"):
        open_pictures(grain.MapDataset.source(images).repeat(), RULE)


def test_one_picture_in_any_form(images, tmp_path):
    """A picture alone needs no list around it."""
    Image.fromarray(images[0]).save(tmp_path / "one.png")

    for one in (images[0], Image.fromarray(images[0]), tmp_path / "one.png",
                str(tmp_path / "one.png")):
        np.testing.assert_array_equal(read(one), images[:1])


def test_files_keep_their_names(images, tmp_path):
    """Paths and folders are told in the order of the pictures."""
    paths = [tmp_path / f"{number}.png" for number in (2, 1)]
    for path, picture in zip(paths, images):
        Image.fromarray(picture).save(path)

    listed, folder = open_pictures(paths, RULE), open_pictures(tmp_path, RULE)

    assert listed.files == tuple(str(path) for path in paths)
    assert listed.num_pictures == folder.num_pictures == 2
    assert folder.files == tuple(sorted(listed.files))
    np.testing.assert_array_equal(np.concatenate(list(listed.arrays)), images[:2])


def test_streams_are_read_as_they_are_used(images):
    """An endless generator gives its first pictures: nothing is collected beforehand."""
    stream = open_pictures(itertools.repeat(images[:2]), RULE).arrays

    assert len(next(stream)) == 2


ZEROS = np.zeros((2, 8, 8, 3), "float32")


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((8, 8), "uint8"), r"np.repeat\(picture\[..., None\], 3, axis=-1\)"),
        (np.zeros((1, 2, 8, 8, 3), "uint8"), "must have the shape"),
        (np.zeros((2, 8, 8, 1), "uint8"), "Repeat the grey channel"),
        (np.zeros((2, 8, 8, 4), "uint8"), "Drop the alpha channel"),
        (np.zeros((2, 3, 8, 8), "uint8"), "Channels seem to come first"),
        (np.zeros((5, 8, 8), "uint8"), "For several grey pictures"),
        (np.zeros((2, 8, 8, 7), "uint8"), "7 on the last axis"),
        (ZEROS.astype(bool), "Received dtype bool"),
        (ZEROS.astype(complex), "Received dtype complex"),
        (ZEROS.astype(str), "Received dtype"),
        (ZEROS + 0.5, "look already scaled to 0..1. Multiply by 255"),
        (ZEROS + 1, "look already scaled to 0..1"),
        (ZEROS - 0.5, "Received values from -0.5 to -0.5"),
        (ZEROS + 255.5, "from 0 to 255. Received values"),
        (ZEROS.astype("int32") + 256, "from 0 to 255. Received values from 256"),
        (ZEROS * np.nan, r"Received NaN or infinity in 2 picture\(s\)"),
        (ZEROS + np.inf, "Received NaN or infinity"),
        (ZEROS[:, :0], r"at least 1x1 pixels. Received shape \(2, 0, 8, 3\)"),
        (ZEROS.astype("uint8")[:, :, :0], "at least 1x1 pixels"),
        ([ZEROS[0, :0]], "Entry 0 of the list must hold pictures of at least 1x1 pixels"),
        ([ZEROS[0], ZEROS], "Entry 1 of the list must have the shape"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused_at_once(images, message):
    """The error says what was expected, what came, and where there is one, the cure."""
    with pytest.raises(ValueError, match=message):
        open_pictures(images, RULE)


@pytest.mark.parametrize(
    "images",
    [ZEROS.astype("uint8"), ZEROS.astype("uint8") + 1, ZEROS, ZEROS.astype("int64") + 1,
     ZEROS + np.float32([0.1, 1.5, 0.2])],
)
def test_dark_pictures_are_pictures(images):
    """Black is not mistaken for scaled, and integers are never doubted."""
    np.testing.assert_array_equal(read(images), images)


@pytest.mark.parametrize(
    "images, message",
    [
        (42, "Received: int"),
        (None, "Received: NoneType"),
        ({"image": ZEROS}, "Received: dict"),
        (["a.png", ZEROS[0]], "not a mixture"),
        ([[1, 2], [3, 4]], "Entry 0 of the list must be an array"),
    ],
)
def test_other_things_are_refused(images, message):
    """What holds no pictures is a `TypeError`."""
    with pytest.raises(TypeError, match=message):
        open_pictures(images, RULE)


@pytest.mark.parametrize(
    "elements, error, message",
    [
        ([ZEROS, {"image": ZEROS}], TypeError, r"Element 1 is a mapping with the keys \['image'\]"),
        ([ZEROS, ZEROS + 0.5], ValueError, "Element 1 of the data set must hold values"),
        ([(ZEROS[..., :1], 0)], ValueError, "Element 0 of the data set must have 3 channels"),
        ([ZEROS, np.zeros((0, 8, 3))], ValueError, "Element 1 .* at least 1x1 pixels"),
    ],
)
def test_bad_elements_of_a_stream_are_numbered(elements, error, message):
    """A stream is checked as it comes, and the error says where it was."""
    with pytest.raises(error, match=message):
        read(iter(elements))


def test_files_for_networks_with_other_channels_are_refused():
    """Files have grey or three colours."""
    with pytest.raises(ValueError, match="this network takes 4"):
        open_pictures(["a.png"], InputRule((8, 8), 4))
    with pytest.raises(ValueError, match="Pillow pictures .* this network takes 4"):
        open_pictures(Image.new("RGBA", (8, 8)), InputRule((8, 8), 4))


@pytest.mark.parametrize("batch_size", [1, 4, 10, 100])
def test_batches_are_full_but_for_the_last(batch_size):
    """Order and values survive cutting and joining."""
    rows = np.arange(37 * 3).reshape(37, 1, 1, 3)
    parts = np.split(rows, [1, 1, 5, 20])

    batches = list(rebatch(parts, batch_size))

    np.testing.assert_array_equal(np.concatenate(batches), rows)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= batch_size


def test_pictures_of_different_sizes_do_not_share_a_batch():
    """So that a user's `preprocess` sees arrays."""
    parts = [np.zeros((2, 8, 8, 3)), np.zeros((1, 8, 8, 3)), np.zeros((1, 4, 4, 3))]

    assert [len(batch) for batch in rebatch(parts, 64)] == [3, 1]
