"""Weight files: exact round trips, and hostile files that are refused before they are read."""

import contextlib

import h5py
import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from keras_adaptive import weights
from keras_adaptive.files import sha256
from keras_adaptive.models import RANet
from keras_adaptive.weights import WeightsError, read_weights, write_weights


def make_model(name="small"):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="exit1")(x), name=name)


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "weights.h5"
    write_weights(model, path)
    return path


def read(model, path):
    """Read a file whose size and digest are right, so that the checks behind them are reached."""
    read_weights(model, path, sha256(path), path.stat().st_size)


def values(model):
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.weights}


@contextlib.contextmanager
def unchanged(model):
    """Check that a model has the weights that it had before."""
    before = values(model)
    yield
    for name, value in values(model).items():
        assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize("dtype", weights.DTYPES)
def test_a_network_gets_back_what_was_written(tiny_arguments, tmp_path, dtype):
    """Every variable returns, rounded to the file's type; the network's name does not matter."""
    trained = RANet(**tiny_arguments, name="trained")
    for weight in trained.weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    write_weights(trained, tmp_path / "weights.h5", dtype)
    fresh = RANet(**tiny_arguments, name="fresh")

    read(fresh, tmp_path / "weights.h5")

    received = values(fresh)
    for path, value in values(trained).items():
        assert_array_equal(received[path], value.astype(dtype).astype("float32"), err_msg=path)


def test_models_inside_a_model_keep_their_variables_apart(tmp_path):
    """Two parts with layers of the same names, as student and teacher have, are both written."""
    def make_pair():
        inputs = keras.Input((4,))
        return keras.Model(inputs, [make_model("first")(inputs), make_model("second")(inputs)])

    trained, fresh = make_pair(), make_pair()
    write_weights(trained, tmp_path / "weights.h5")

    read(fresh, tmp_path / "weights.h5")

    for received, expected in zip(fresh.get_weights(), trained.get_weights()):
        assert_array_equal(received, expected)


def test_a_file_holds_one_dataset_per_variable_under_its_path(model, path):
    """Files can be read without this package, and are the same on every backend."""
    with h5py.File(path) as file:
        found = []
        file.visititems(lambda name, item: found.append(name)
                        if isinstance(item, h5py.Dataset) else None)

    assert sorted(found) == sorted([
        "hidden/kernel", "hidden/bias", "exit1/kernel", "exit1/bias", "norm/gamma", "norm/beta",
        "norm/moving_mean", "norm/moving_variance"])


@pytest.mark.parametrize("value, dtype", [(np.nan, "float32"), (np.inf, "float32"),
                                          (1e5, "float16")])
def test_values_that_the_file_cannot_hold_are_an_error(model, tmp_path, value, dtype):
    """Half precision ends at 65504; an overflow is not written silently."""
    model.get_layer("norm").moving_variance.assign([1.0, value, 1.0])

    with pytest.raises(ValueError, match="1 variables .* norm/moving_variance"):
        write_weights(model, tmp_path / "weights.h5", dtype)
    assert not list(tmp_path.iterdir())


def test_an_unknown_dtype_is_an_error(model, tmp_path):
    """Types that the reader refuses are not written."""
    with pytest.raises(ValueError, match="float32.*Received: 'int8'"):
        write_weights(model, tmp_path / "weights.h5", "int8")


class Twins(keras.layers.Layer):
    """Two layers that were given one name."""

    def build(self, input_shape):
        self.first, self.second = (keras.layers.Dense(2, name="twin") for _ in range(2))
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, x):
        return self.first(x) + self.second(x)


def test_variables_of_one_path_are_an_error(tmp_path):
    """A file keyed by path cannot tell them apart, so it is not written."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Twins()(inputs))

    with pytest.raises(ValueError, match="4 variables have 2 paths; name the layers"):
        write_weights(model, tmp_path / "weights.h5")


def test_a_cut_file_is_refused_by_its_size(model, path):
    """The size is known before a byte is read."""
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:size // 2])

    with unchanged(model), pytest.raises(
            WeightsError, match=f"has {size // 2} bytes, expected {size}.*cut short"):
        read_weights(model, path, "0" * 64, size)


def test_a_changed_file_is_refused_by_its_digest(model, path):
    """Both digests are named, and what to do."""
    expected = sha256(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with unchanged(model), pytest.raises(
            WeightsError, match=f"{sha256(path)}, expected {expected}.*delete it"):
        read_weights(model, path, expected, len(content))


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(64), b"\x80\x04pickle" * 9])
def test_what_is_no_hdf5_file_is_refused(model, path, content):
    """Also when its record vouches for it."""
    path.write_bytes(content)

    with pytest.raises(WeightsError, match="is no weight file"):
        read(model, path)


def test_every_cut_of_a_file_is_refused_or_harmless(model, path):
    """Wherever the file ends, and whatever the record says: an error, never half of the weights."""
    whole, before = path.read_bytes(), values(model)
    for end in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:end])
        with pytest.raises(WeightsError):
            read(model, path)
    for name, value in values(model).items():
        assert_array_equal(value, before[name])


def test_all_differences_are_named_at_once_and_nothing_is_loaded(model, path):
    """One look at the message tells which network the file belongs to."""
    with h5py.File(path, "r+") as file:
        del file["hidden/bias"], file["exit1/kernel"]
        file["exit1/kernel"] = np.zeros((3, 7), "float32")
        file["exit1/scale"] = np.zeros(2, "float32")
        file["exit9/kernel"] = np.zeros(2, "float32")
    with unchanged(model), pytest.raises(WeightsError) as caught:
        read(model, path)

    for problem in ("hidden/bias is missing", "exit1/kernel has shape (3, 7), expected (3, 2)",
                    "exit1/scale is unknown", "exit9 is unknown", "'small'"):
        assert problem in str(caught.value)


def test_a_long_list_of_differences_is_shortened(model, path):
    """A message is for people."""
    with h5py.File(path, "r+") as file:
        for number in range(500):
            file[f"stranger{number}"] = np.zeros(1, "float32")

    with pytest.raises(WeightsError, match="and 488 more"):
        read(model, path)


def test_a_huge_declared_shape_is_refused_before_memory_is_taken(model, path):
    """The file stays small, because unwritten data takes no room in it."""
    with h5py.File(path, "r+") as file:
        del file["hidden/kernel"]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
        space = h5py.h5s.create_simple((2**40, 2**16))
        h5py.h5d.create(file["hidden"].id, b"kernel", h5py.h5t.IEEE_F32LE, space, creation)
    assert path.stat().st_size < 1e5

    with unchanged(model), pytest.raises(
            WeightsError, match="hidden/kernel has shape .1099511627776, 65536."):
        read(model, path)


@pytest.mark.parametrize("link", [
    h5py.SoftLink("/exit1/bias"),
    h5py.ExternalLink("elsewhere.h5", "/hidden/bias"),
])
def test_links_are_refused(model, path, link):
    """What a name leads to must lie in the file that was checked."""
    with h5py.File(path.parent / "elsewhere.h5", "w") as file:
        file["hidden/bias"] = np.zeros(3, "float32")
    with h5py.File(path, "r+") as file:
        del file["hidden/bias"]
        file["hidden/bias"] = link

    with unchanged(model), pytest.raises(WeightsError, match="hidden/bias is a link"):
        read(model, path)


def stored_outside(group, folder):
    outside = folder / "outside.bin"
    outside.write_bytes(bytes(12))
    group.create_dataset("bias", (3,), "float32", external=[(str(outside), 0, 12)])


def virtual(group, folder):
    with h5py.File(folder / "source.h5", "w") as file:
        file["data"] = np.zeros(3, "float32")
    layout = h5py.VirtualLayout((3,), "float32")
    layout[:] = h5py.VirtualSource(str(folder / "source.h5"), "data", (3,))
    group.create_virtual_dataset("bias", layout)


def compressed(group, folder):
    group.create_dataset("bias", (3,), "float32", chunks=(3,), compression="gzip")


def text(group, folder):
    group.create_dataset("bias", (3,), h5py.string_dtype())


def integers(group, folder):
    group.create_dataset("bias", (3,), "int64")


def a_group(group, folder):
    group.create_group("bias")


def itself(group, folder):
    group["bias"] = group


@pytest.mark.parametrize("replace, problem", [
    (stored_outside, "stored elsewhere"),
    (virtual, "virtual"),
    (compressed, "compressed"),
    (text, "dtype object"),
    (integers, "dtype int64"),
    (a_group, "hidden/bias is unknown"),
    (itself, "hidden/bias is unknown"),
], ids=lambda case: getattr(case, "__name__", ""))
def test_datasets_of_other_kinds_are_refused(model, path, replace, problem):
    """Only plain arrays of floats inside the file are read."""
    with h5py.File(path, "r+") as file:
        del file["hidden/bias"]
        replace(file["hidden"], path.parent)

    with unchanged(model), pytest.raises(
            WeightsError, match=f"hidden/bias.*{problem.removeprefix('hidden/bias ')}"):
        read(model, path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(model, path, value):
    """A network that answers NaN to everything is not loaded without a word."""
    with h5py.File(path, "r+") as file:
        file["hidden/bias"][1] = value

    with unchanged(model), pytest.raises(WeightsError, match="NaN or infinity in 1 .*hidden/bias"):
        read(model, path)


def test_the_weights_of_another_network_of_the_same_size_are_refused(model, path):
    """Swapped files: by the digest where a record has one, else by the names in the file."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="masked")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    other = keras.Model(inputs, keras.layers.Dense(2, name="exit1")(x))
    expected, size = sha256(path), path.stat().st_size
    write_weights(other, path)
    assert path.stat().st_size == size

    with unchanged(model):
        with pytest.raises(WeightsError, match=f"expected {expected}"):
            read_weights(model, path, expected, size)
        with pytest.raises(WeightsError, match="masked is unknown; hidden/"):
            read(model, path)


def test_a_group_that_contains_itself_ends(model, path):
    """A circle of hard links is one unknown name, not an endless walk."""
    with h5py.File(path, "r+") as file:
        file["hidden/again"] = file["/"]

    with pytest.raises(WeightsError, match="hidden/again is unknown"):
        read(model, path)


def test_layers_that_stay_fresh_are_not_read(model, path):
    """Their shapes may be others; everything else is as strict as before."""
    with h5py.File(path, "r+") as file:
        del file["exit1/kernel"], file["exit1/bias"]
        file["exit1/kernel"] = np.zeros((3, 7), "float32")
        file["exit1/bias"] = np.zeros(7, "float32")
        file["hidden/bias"][...] = 5
    before = values(model)

    read_weights(model, path, fresh=["exit1"])

    assert_array_equal(values(model)["hidden/bias"], [5, 5, 5])
    assert_array_equal(values(model)["exit1/kernel"], before["exit1/kernel"])
    with h5py.File(path, "r+") as file:
        del file["exit1/bias"]
    with pytest.raises(WeightsError, match="exit1/bias is missing"):
        read_weights(model, path, fresh=["exit1"])


def test_a_file_without_a_record_may_not_be_larger_than_the_network(model, path):
    """It is refused by its size before it is read into memory."""
    read_weights(model, path)
    with open(path, "ab") as file:
        file.write(bytes(weights.most_bytes(model)))

    with unchanged(model), pytest.raises(WeightsError, match="of this network take at most"):
        read_weights(model, path)


def test_a_file_of_keras_own_format_is_told_what_reads_it(model, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")

    with pytest.raises(WeightsError, match="give them to `model.load_weights`"):
        read_weights(model, tmp_path / "model.weights.h5")


def test_a_file_of_a_training_run_is_told_what_reads_it(model, tmp_path):
    """It is larger than the weights, as it holds the optimizer's variables, and has no others."""
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    path = tmp_path / "best.weights.h5"
    model.save_weights(path)
    with open(path, "ab") as file:  # HDF5's room beside the values of a small network hides it
        file.write(bytes(weights.most_bytes(model)))

    with pytest.raises(WeightsError, match="best.weights.h5 of `keras-adaptive train`.*give them "
                                           "to `model.load_weights`.*keras-adaptive publish"):
        read_weights(model, path)
    fresh = make_model()
    fresh.load_weights(path)
    for received, expected in zip(fresh.get_weights(), model.get_weights()):
        assert_array_equal(received, expected)
