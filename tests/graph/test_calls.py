import keras
import numpy as np

from keras_adaptive.graph import flatten


def test_a_call_tells_whether_it_is_given_constants():
    inputs = keras.Input((4,))
    merged = keras.layers.Add()([inputs, inputs, np.ones((1, 4), "float32")])
    model = keras.Model(inputs, keras.layers.Multiply()([inputs, keras.layers.ReLU()(merged)]))

    assert {type(call.operation).__name__: call.has_constants for call in flatten(model).calls} == {
        "Add": True, "ReLU": False, "Multiply": False}
