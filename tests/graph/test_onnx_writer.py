import keras
import numpy as np
import pytest

from keras_adaptive.graph import split_into_stages
from keras_adaptive.graph.onnx_writer import UnsupportedOperationError, write_stages
from keras_adaptive.layers import AlignedResize, Downscaler, EightBits, Thumbnail
from keras_adaptive.models import MSDNet, RANet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

L = keras.layers
TINY_RANET = {"scales": (1, 2), "channels": 4, "growth_rate": 4, "growth_factors": (2, 1),
              "blocks": 2, "block_step": 2, "layers_per_block": 2, "layer_growth": "linear",
              "pooling": "global", "num_classes": 3, "normalization": "cifar10"}
TINY_MSDNET = {"channels": 4, "growth_rate": 4, "growth_factors": (1, 2), "blocks": 2,
               "layers_in_first_block": 2, "layers_per_block": 2, "pooling": "global",
               "num_classes": 3}


def randomize(model, seed=0):
    """Give every variable a value that matters, moving statistics included."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.dtype != "float32":
            continue
        is_variance = "variance" in variable.path
        values = rng.uniform(0.5, 1.5, variable.shape) if is_variance else (
            rng.normal(0, 0.3, variable.shape))
        variable.assign(values.astype("float32"))


def run_stages(written, pictures):
    """Run ONNX stages one after the other and return the probabilities of each."""
    values, probabilities = {"pictures": pictures}, []
    for stage in written:
        onnx.checker.check_model(onnx.load_from_string(stage.model), full_check=True)
        session = onnxruntime.InferenceSession(stage.model, providers=["CPUExecutionProvider"])
        outputs = session.run([stage.output, *stage.makes],
                              {name: values[name] for name in stage.reads})
        values.update(zip(stage.makes, outputs[1:]))
        probabilities.append(outputs[0])
    return probabilities


def outputs_of(model, pictures):
    outputs = model(pictures, training=False)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def assert_writes(model, shape=(9, 7, 4), num_pictures=3):
    """The ONNX graph computes what the model computes, for any number of pictures."""
    randomize(model)
    for count in (num_pictures, 1):
        pictures = np.random.default_rng(1).normal(size=(count, *shape)).astype("float32")
        written = write_stages(split_into_stages(model), [False] * len(model.outputs))
        for expected, received in zip(outputs_of(model, pictures), run_stages(written, pictures)):
            scale = max(1, np.abs(expected).max())
            np.testing.assert_allclose(received, expected, atol=2e-5 * scale, rtol=0)


def model_of(layers, shape=(9, 7, 4)):
    """A model of some layers, whose output is a row of numbers for each picture."""
    inputs = keras.Input(shape)
    x = inputs
    for layer in layers:
        x = layer(x)
    if len(x.shape) == 4:
        x = L.Flatten()(x)
    return keras.Model(inputs, x)


CASES = {
    "convolution": [L.Conv2D(5, 3)],
    "same padding": [L.Conv2D(5, 3, padding="same", activation="relu")],
    "strided same padding": [L.Conv2D(5, 3, strides=2, padding="same")],
    "even kernel": [L.Conv2D(5, (2, 4), padding="same")],
    "padded by a layer": [L.ZeroPadding2D(((1, 2), (0, 1))), L.Conv2D(5, 3, strides=2)],
    "padding without convolution": [L.ZeroPadding2D(1), L.ReLU()],
    "dilated": [L.Conv2D(5, 3, dilation_rate=2, padding="same")],
    "batch norm folded": [L.Conv2D(5, 3, use_bias=False), L.BatchNormalization(), L.ReLU()],
    "batch norm without scale and shift": [L.Conv2D(5, 3), L.BatchNormalization(
        scale=False, center=False)],
    "batch norm alone": [L.BatchNormalization(), L.ReLU(), L.Conv2D(3, 1)],
    "depthwise": [L.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
                  L.BatchNormalization(), L.ReLU(6.0)],
    "separable": [L.SeparableConv2D(6, 3, depth_multiplier=2, activation="tanh")],
    "rescaling": [L.Rescaling([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4])],
    "rescaling by an array": [L.Rescaling(np.arange(4.0).reshape(1, 1, 4), [[2.0]])],
    "normalization": [L.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0])],
    "pooling": [L.MaxPooling2D(3, strides=2, padding="same"), L.AveragePooling2D(2)],
    "average pooling with padding": [L.AveragePooling2D(3, strides=2, padding="same")],
    "global average": [L.GlobalAveragePooling2D(), L.Dense(3, activation="softmax")],
    "global maximum": [L.GlobalMaxPooling2D(keepdims=True), L.Conv2D(3, 1)],
    "flatten": [L.Conv2D(2, 3), L.Flatten(), L.Dense(3)],
    "reshape": [L.GlobalAveragePooling2D(), L.Reshape((1, 1, 4)), L.Conv2D(3, 1)],
    "reshape of maps": [L.Reshape((7, 9, 4)), L.Conv2D(3, 3)],
    "leaky": [L.LeakyReLU(negative_slope=0.1), L.ReLU(negative_slope=0.3)],
    "resize": [AlignedResize(13, 5), AlignedResize(1, 1), AlignedResize(6, 11)],
    "upsampling": [L.UpSampling2D((2, 3))],
    "slopes by number": [L.ELU(alpha=0.4), L.PReLU(shared_axes=[1, 2]), L.PReLU(),
                         L.PReLU(shared_axes=[2]), L.Reshape((7, 36)), L.PReLU(shared_axes=[1]),
                         L.LayerNormalization(), L.ELU(), L.Reshape((9, 7, 4)),
                         L.GlobalAveragePooling2D(), L.PReLU()],
    "layer norm": [L.LayerNormalization(epsilon=0.01), L.Conv2D(3, 1),
                   L.LayerNormalization(scale=False, center=False), L.GlobalAveragePooling2D(),
                   L.LayerNormalization(center=False)],
    "nothing": [L.Dropout(0.5), L.Activation("linear"), L.Identity(), L.Conv2D(3, 1)],
    "wide odd channels": [L.Conv2D(18, 1), L.Conv2D(66, 3, strides=2, padding="valid")],
}


@pytest.mark.parametrize("layer", [
    Downscaler(4, 8), Downscaler(2, 8, area="first"), Downscaler(2, 8, area="added"),
    Thumbnail(2, "bicubic"), EightBits(name="eight_bits")], ids=lambda layer: layer.name)
def test_downscalers(layer):
    """What makes thumbnails can be exported alone, and leads the student's graph."""
    assert_writes(model_of([layer], shape=(8, 12, 3)), shape=(8, 12, 3))


@pytest.mark.parametrize("layers", CASES.values(), ids=CASES)
def test_single_layers(layers):
    """Every layer that the writer knows computes in ONNX what it computes in Keras."""
    assert_writes(model_of([layer.__class__.from_config(layer.get_config())
                            if not isinstance(layer, L.Normalization) else layer
                            for layer in layers]))


def test_augmentation_is_nothing():
    """It stands in front of many networks, and changes nothing in inference."""
    assert_writes(model_of([
        L.RandomFlip(), L.RandomRotation(0.2), L.RandomTranslation(0.2, 0.2), L.RandomZoom(0.2),
        L.RandomShear(0.2, 0.2), L.RandomPerspective(), L.RandomContrast(0.5),
        L.RandomBrightness(0.5), L.RandomErasing(), L.RandomGaussianBlur(), L.Conv2D(3, 1),
        L.RandomHue(0.5), L.RandomSaturation(0.5), L.RandomSharpness(0.5),
        L.RandomColorJitter(brightness_factor=0.5), L.RandomGrayscale(), L.RandAugment(),
        L.RandomColorDegeneration(0.5), L.RandomPosterization(4), L.RandomInvert(0.5),
        L.RandomElasticTransform(0.5), L.AugMix(), L.MixUp(), L.CutMix(), L.Solarization(),
        keras.Sequential([L.RandomFlip()])]))


@pytest.mark.parametrize("name", [
    "relu", "relu6", "silu", "sigmoid", "tanh", "gelu", "elu", "selu", "softplus", "softsign",
    "hard_sigmoid", "hard_silu", "leaky_relu", "mish", "exponential"])
def test_activations(name):
    """Activation functions agree, in a layer of their own and within a convolution."""
    assert_writes(model_of([L.Conv2D(3, 1, activation=name), L.Activation(name)]))


def relu(x):
    return keras.ops.maximum(x, 0.3)


def softmax(x):
    return keras.ops.softmax(x * 5)


@pytest.mark.parametrize("layers", [
    [L.Conv2D(3, 1, activation=relu)], [L.Conv2D(3, 1), L.Activation(relu)],
    [L.GlobalAveragePooling2D(), L.Dense(3, activation=softmax)],
    [L.Conv2D(3, 1, activation=keras.ops.gelu)], [L.SeparableConv2D(3, 1, activation="softmax")],
], ids=["convolution", "layer", "dense", "approximate gelu", "softmax of channels"])
def test_other_functions_with_the_names_of_activations(layers):
    """What is called like an activation of Keras and computes something else is refused."""
    name = layers[-1].activation.__name__

    with pytest.raises(UnsupportedOperationError, match=f"'{name}'.*engine=\"keras\""):
        write_stages(split_into_stages(model_of(layers)), [False])


def test_operations_as_activations():
    """Functions of `keras.ops` are written where they compute what the activations compute."""
    assert_writes(model_of([L.Conv2D(3, 1, activation=keras.ops.silu),
                            L.Activation(keras.ops.exp), L.Flatten(),
                            L.Dense(3, activation=keras.ops.softmax)]))


@pytest.mark.parametrize("is_tensor", [True, False])
def test_a_softmax_with_a_mask_is_refused(is_tensor):
    """The mask takes classes out, which the graph would not do."""
    inputs = keras.Input((4,))
    mask = keras.ops.relu(inputs) if is_tensor else np.array([True, True, False, True])

    model = keras.Model(inputs, L.Softmax()(inputs * 2, mask))

    with pytest.raises(UnsupportedOperationError, match="with a mask"):
        write_stages(split_into_stages(model), [False])


def test_tensors_brought_together():
    """Sums, products and concatenations of maps, and of maps with constants."""
    inputs = keras.Input((9, 7, 4))
    a, b = L.Conv2D(4, 1)(inputs), L.Conv2D(4, 1, activation="relu")(inputs)
    x = L.Concatenate()([L.Add()([a, b, inputs]), L.Multiply()([a, b]), L.Average()([a, b])])
    x = L.Concatenate(axis=1)([x, L.Concatenate()([L.Maximum()([a, b]), L.Subtract()([a, b]),
                                                   L.Minimum()([a, inputs])])])
    x = (2.0 * x - 1.0) / 3.0 + keras.ops.relu(x)
    x = x[..., 2:9] * np.arange(1, 8, dtype="float32")
    assert_writes(keras.Model(inputs, L.Flatten()(x)))


def test_padding_by_an_operation():
    """What `keras.ops.pad` adds comes on the sides and channels where Keras has it: zeros, or
    another number, such as the least in front of a pooling."""
    inputs = keras.Input((5, 4, 3))
    x = keras.ops.pad(inputs, ((0, 0), (1, 2), (0, 3), (2, 1)))
    x = L.GlobalAveragePooling2D()(L.Conv2D(2, 3)(x))
    assert_writes(keras.Model(inputs, keras.ops.pad(x, ((0, 0), (1, 0)))), (5, 4, 3))

    sides = ((0, 0), (1, 1), (1, 1), (0, 0))
    pooled = L.MaxPooling2D(3)(keras.ops.pad(inputs, sides, constant_values=float("-inf")))
    assert_writes(keras.Model(inputs, L.Flatten()(pooled)), (5, 4, 3))
    x = L.Flatten()(keras.ops.pad(inputs, sides, mode="reflect"))
    with pytest.raises(UnsupportedOperationError, match="anything but one number"):
        write_stages(split_into_stages(keras.Model(inputs, x)), [False])


def test_means_by_an_operation():
    """Over rows and columns, as squeeze-and-excitation takes them; over nothing else."""
    inputs = keras.Input((5, 4, 3))
    gate = L.Conv2D(3, 1, activation="sigmoid")(keras.ops.mean(inputs, (1, 2), keepdims=True))
    x = keras.ops.mean(L.Multiply()([inputs, gate]), axis=(-3, -2))
    assert_writes(keras.Model(inputs, x), (5, 4, 3))

    x = L.Flatten()(keras.ops.mean(inputs, axis=-1))
    with pytest.raises(UnsupportedOperationError, match="rows and columns"):
        write_stages(split_into_stages(keras.Model(inputs, x)), [False])


def test_stages_hand_on_what_later_ones_read():
    """A map made by the first stage and read by the third is an output and an input."""
    inputs = keras.Input((8, 8, 4))
    early = L.Conv2D(5, 3, activation="relu")(inputs)

    def head(x):
        return L.Dense(3)(L.GlobalAveragePooling2D()(x))

    middle = L.Conv2D(6, 1)(early)
    late = L.Concatenate()([early, L.ReLU()(middle), L.Conv2D(2, 3)(inputs)])
    model = keras.Model(inputs, [head(early), head(middle), head(late)])

    written = write_stages(split_into_stages(model), [False] * 3)

    assert written[0].reads == ("pictures",)
    assert set(written[2].reads) == {"pictures", *written[0].makes, *written[1].makes}
    assert_writes(model, (8, 8, 4))


@pytest.mark.parametrize("build", [
    lambda: RANet(**TINY_RANET), lambda: MSDNet(**TINY_MSDNET)], ids=["ranet", "msdnet"])
@pytest.mark.parametrize("merge", [True, False])
def test_networks_of_the_papers(build, merge):
    """RANet and MSDNet, stage by stage, with and without siblings merged."""
    model = build()
    randomize(model)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")

    written = write_stages(split_into_stages(model), [True] * model.num_exits, merge=merge)

    for expected, received in zip(outputs_of(model, pictures), run_stages(written, pictures)):
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(expected))
        np.testing.assert_allclose(received, expected, atol=2e-5)


def test_merging_leaves_fewer_convolutions():
    """Thin convolutions that read the same map of the coarser sub-network become one."""
    stages = split_into_stages(RANet(**TINY_RANET))

    def count(merge):
        graphs = [onnx.load_from_string(stage.model).graph
                  for stage in write_stages(stages, [True] * len(stages), merge=merge)]
        return sum(node.op_type == "Conv" for graph in graphs for node in graph.node)

    assert count(merge=True) < count(merge=False)


def test_what_is_written_already_is_not_written_again():
    """Only a stage whose weights, or whose softmax, are others now is written anew."""
    model = RANet(**TINY_RANET)
    stages = split_into_stages(model)
    is_logits = [True] * len(stages)
    first = write_stages(stages, is_logits)

    again = write_stages(stages, is_logits)
    assert all(one is other for one, other in zip(first, again))

    kernel = stages[1].variables[-2]
    kernel.assign(kernel + 1)
    changed = write_stages(stages, [False, *is_logits[1:]])
    assert [one.model != other.model for one, other in zip(first, changed)] == [
        True, True, *[False] * (len(stages) - 2)]


def test_what_cannot_be_written_is_named():
    """The error says which operation it is, and what to use in place of ONNX."""
    model = model_of([L.Conv2D(3, 1), L.Lambda(lambda x: x * 2, name="doubling")])

    with pytest.raises(UnsupportedOperationError, match='doubling.*engine="keras"'):
        write_stages(split_into_stages(model), [False])


def folded_into_the_batch(x):
    x = L.Dense(2)(keras.ops.reshape(x, (-1, 4)))
    return keras.ops.reshape(x, (-1, 5, 6, 2))


@pytest.mark.parametrize("function, message", [
    (folded_into_the_batch, "numbers a row of the batch has"),
    (lambda x: keras.ops.average(x, axis=1), "only as the layer"),
    (lambda x: keras.ops.average(x, axis=1, weights=np.ones(5, "float32")), "only as the layer"),
    (L.Rescaling(np.ones((5, 6, 4))), "neither a number nor one per channel"),
    (L.Rescaling([[[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]]), "neither a number nor"),
    (L.Rescaling(1.0, offset=[[[1.0]] * 6] * 5), "neither a number nor one per channel"),
    (L.LayerNormalization(axis=(1, 2, 3)), "anything but the last axis"),
    (L.RandomCrop(3, 3), "RandomCrop.*cannot be written"),
    (L.Normalization(axis=1, mean=[1.0] * 5, variance=[2.0] * 5), "neither a number nor"),
    (lambda x: L.GlobalAveragePooling2D()(x) * np.ones((1, 1, 4), "float32"), "neither a number"),
    (lambda x: L.GlobalAveragePooling2D()(x) * np.ones((1, 1, 1), "float32"), "neither a number"),
], ids=["reshape", "average", "weighted average", "scale per value", "scale per column",
        "offset per row and column", "layer norm of maps", "crop", "normalization of rows",
        "constant of more axes", "number of more axes"])
def test_what_would_fail_or_differ_is_refused(function, message):
    """The error is the one after which `engine="auto"` runs Keras."""
    inputs = keras.Input((5, 6, 4))
    model = keras.Model(inputs, L.Flatten()(function(inputs)))

    with pytest.raises(UnsupportedOperationError, match=message):
        write_stages(split_into_stages(model), [False])


@pytest.mark.parametrize("merge", [
    L.Add, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Subtract, lambda: L.Concatenate(axis=0),
    lambda: keras.ops.concatenate,
], ids=["add", "multiply", "average", "maximum", "minimum", "subtract", "concatenate",
        "concatenate as an operation"])
@pytest.mark.parametrize("is_tensor", [True, False])
def test_constants_among_merged_tensors_are_refused(merge, is_tensor):
    """A call reads no constants, and without them the graph would compute something else."""
    constant = np.full((1, 4), 2, "float32")
    if is_tensor:
        constant = keras.ops.convert_to_tensor(constant)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, merge()([L.Dense(4)(inputs), constant]))

    with pytest.raises(UnsupportedOperationError, match="with a constant among"):
        write_stages(split_into_stages(model), [False])


def test_average_pooling_with_uneven_padding():
    """Keras on PyTorch counts what it pads there, which ONNX does not."""
    model = model_of([L.AveragePooling2D((2, 3), padding="same")])

    if keras.backend.backend() != "torch":
        return assert_writes(model)
    with pytest.raises(UnsupportedOperationError, match="more padding on one side"):
        write_stages(split_into_stages(model), [False])


def test_a_normalization_of_as_many_rows_as_channels():
    """Rows are not taken for channels where there are as many of them."""
    layer = L.Normalization(axis=1, mean=[1.0, 2.0, 3.0, 4.0], variance=[2.0] * 4)

    with pytest.raises(UnsupportedOperationError, match="neither a number nor one per channel"):
        write_stages(split_into_stages(model_of([layer], (4, 6, 4))), [False])


def test_a_layer_of_ones_own_with_the_name_of_a_keras_layer():
    """A class of the user's that is called like Keras's is not taken for it."""

    class ReLU(keras.layers.Layer):
        def call(self, x):
            return -x

    with pytest.raises(UnsupportedOperationError, match="ReLU"):
        write_stages(split_into_stages(model_of([ReLU()])), [False])


def test_other_precisions_are_refused():
    """A network that computes in half precision would give other answers in float32."""
    model = model_of([L.Conv2D(3, 1, dtype="mixed_bfloat16"), L.Flatten(), L.Dense(2)])

    with pytest.raises(UnsupportedOperationError, match="bfloat16"):
        write_stages(split_into_stages(model), [True])


def test_a_setting_that_was_changed_is_written_anew():
    inputs = keras.Input((8, 8, 3))
    layer = keras.layers.Dense(4, activation="relu")
    model = keras.Model(inputs, layer(keras.layers.GlobalAveragePooling2D()(inputs)))
    stages = split_into_stages(model)
    (relu,) = write_stages(stages, [True])
    layer.activation = keras.activations.tanh
    (tanh,) = write_stages(stages, [True])
    assert b"Tanh" in tanh.model and b"Tanh" not in relu.model


@pytest.mark.parametrize("function, dtype", [
    (lambda x: x * 2, "uint8"), (lambda x: x * 2, "float16"), (lambda x: x / 255, "float16"),
    (lambda x: L.Add()([x, x]), "uint8"), (lambda x: L.Average()([x, x]), "uint8"),
    (lambda x: L.ZeroPadding2D(1)(x) * 2, "uint8"),
], ids=["product", "product of halves", "quotient of halves", "sum", "average",
        "behind a layer that leaves integers"])
def test_operations_in_other_dtypes_are_refused(function, dtype):
    """Twice 200 is 144 in uint8, also where Keras states float32; the graph would not wrap."""
    inputs = keras.Input((5, 4, 3), dtype=dtype)
    model = keras.Model(inputs, L.Flatten()(L.Rescaling(0.1)(function(inputs))))

    with pytest.raises(UnsupportedOperationError, match=f"computes in {dtype}"):
        write_stages(split_into_stages(model), [False])


@pytest.mark.parametrize("function", [
    L.Rescaling(1 / 255), lambda x: x / 255, lambda x: keras.ops.mean(x, axis=(1, 2)),
    L.Normalization(mean=[1.0] * 4, variance=[4.0] * 4), AlignedResize(5, 3), Thumbnail(2),
    L.GlobalAveragePooling2D(), L.BatchNormalization(),
], ids=["rescaling", "quotient", "mean", "normalization", "resize", "thumbnail",
        "global average", "batch norm"])
def test_pictures_of_integers(function):
    """What makes float32 of them is written, and cuts decimals as the model does."""
    inputs = keras.Input((8, 6, 4), dtype="uint8")
    model = keras.Model(inputs, L.Flatten()(function(inputs)))
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 8, 6, 4)).astype("float32")

    (received,) = run_stages(write_stages(split_into_stages(model), [False]), pictures)

    (expected,) = outputs_of(model, pictures.astype("uint8"))
    np.testing.assert_allclose(received, expected, rtol=1e-5)


def test_whole_numbers_are_the_same_as_floats():
    """To the bit, whatever dtype the network takes."""
    layers = [L.Rescaling(1 / 255), L.Conv2D(8, 3), L.Flatten()]
    pictures = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 4)).astype("float32")
    answers = []
    for dtype in ("float32", "uint8"):
        inputs = x = keras.Input((9, 7, 4), dtype=dtype)
        for layer in layers:
            x = layer(x)
        written = write_stages(split_into_stages(keras.Model(inputs, x)), [True])
        answers.extend(run_stages(written, pictures))

    np.testing.assert_array_equal(*answers)
