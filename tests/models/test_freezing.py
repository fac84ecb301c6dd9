import keras
import numpy as np
import pytest

from keras_adaptive.attach import attach_exits
from keras_adaptive.models import ResNet
from keras_adaptive.models.cascade import cascade
from keras_adaptive.models.freezing import all_layers, freeze, frozen_positions
from keras_adaptive.models.thumbnet_cascade import ThumbNetCascade


def make_resnet():
    return ResNet(8, 4, 5, (8, 8, 3))


def make_attached():
    return attach_exits(make_resnet(), count=1)


def make_cascade():
    teacher = make_resnet()
    teacher.trainable = False
    return cascade(None, ResNet(8, 2, 5, (8, 8, 3), name="student"), teacher)


def make_transfer():
    """All but the head is frozen: what whoever has other classes begins with."""
    model = make_resnet()
    for layer in model.layers[:-1]:
        layer.trainable = False
    return model


def make_thumbnet():
    model = ThumbNetCascade("resnet20_cifar10", {"depth": 8, "channels": 4}, num_classes=5,
                            input_shape=(16, 16, 3))
    model.teacher.trainable = False
    return model


def make_part():
    """A single normalisation inside a block is frozen, and the block is not."""
    model = make_resnet()
    next(layer for layer in all_layers(model.layers[2])
         if isinstance(layer, keras.layers.BatchNormalization)).trainable = False
    return model


@pytest.mark.parametrize("make", [make_resnet, make_attached, make_cascade, make_transfer,
                                  make_thumbnet, make_part])
def test_files_keep_what_is_frozen(make, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert frozen_positions(loaded) == frozen_positions(model)
    assert [v.shape for v in loaded.trainable_variables] == [
        v.shape for v in model.trainable_variables]
    assert [v.trainable for v in loaded.variables] == [v.trainable for v in model.variables]


def test_a_frozen_trunk_is_not_trained_after_loading(tmp_path):
    pictures = np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)).astype("float32")
    model = make_attached()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.fit(pictures, np.arange(8) % 5, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = loaded.predict(pictures, verbose=0)

    assert int(loaded.optimizer.iterations) == 1
    loaded.fit(pictures, np.arange(8) % 5, verbose=0)

    after = loaded.predict(pictures, verbose=0)
    np.testing.assert_array_equal(after[1], before[1])
    assert np.abs(after[0] - before[0]).max() > 0


def test_the_model_itself_is_at_position_0():
    model = make_resnet()
    assert frozen_positions(model) == []
    model.trainable = False
    assert frozen_positions(model) == list(range(len(list(all_layers(model)))))
    freeze(model, [])
    assert model.trainable and frozen_positions(model) == []


def test_files_that_do_not_say_it_leave_layers_as_they_were_made():
    """A cascade's teacher is made frozen."""
    model = ThumbNetCascade("resnet20_cifar10", {"depth": 8, "channels": 4}, num_classes=5,
                            input_shape=(16, 16, 3))
    assert frozen_positions(model)
    config = model.get_config()
    del config["frozen"]
    assert frozen_positions(ThumbNetCascade.from_config(config)) == frozen_positions(model)
