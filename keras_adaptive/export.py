"""Export the stages of a network for deployment, one file each, with a manifest beside them."""

import pathlib
import sys

import keras_adaptive
from keras_adaptive.evaluation.calibration import check_temperatures
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.files import sha256, write_folder_whole
from keras_adaptive.inference.arguments import check_threshold, choose_class_names, choose_exits
from keras_adaptive.inference.keras_network import KerasNetwork
from keras_adaptive.manifest import (
    FILES,
    FORMATS,
    MANIFEST,
    InputRecord,
    Manifest,
    StageFile,
    StageRecord,
    Tensor,
    is_export,
)
from keras_adaptive.model_files import is_model_file
from keras_adaptive.names import did_you_mean


def export_stages(model, folder, format="onnx", *, thresholds=None, exits=None, class_names=None,
                  temperatures=None, from_logits="auto"):
    """Write a network as files that run without Keras, one per stage, and a manifest.

    `EarlyExitPredictor.from_export(folder)` runs them and gives the answers that the model gives.
    The folder stands under its name when all of it is written, and replaces an earlier export as a
    whole.

    Args:
        model: `keras.Model` as for `EarlyExitPredictor`, for pictures of one size; or the path of a
            `.keras` file; or the name of a zoo model.
        folder: path of the folder. New, empty, or an earlier export.
        format: `"onnx"`, for ONNX Runtime and OpenVINO; `"openvino"`; `"saved_model"`, for
            TensorFlow; or `"litert"`, for LiteRT with no other operations than its own. The last
            two need Keras on TensorFlow.
        thresholds: float, or one per exit of the model: those of the predictor, unless it is given
            others. Defaults for a zoo model with all its exits and no temperatures to the
            calibrated thresholds that the predictor takes, see `zoo.default_thresholds`; else the
            export has none, and the predictor takes 0.8.
        exits: sequence of ints, counted from 1, or None for all: the exits in use. What only others
            need is not exported.
        class_names: sequence of strings. Defaults to `model.class_names`, where there is one.
        temperatures: sequence of floats, one per exit of the model, or None; see
            `EarlyExitPredictor`.
        from_logits: bool or `"auto"`; see `EarlyExitPredictor`. The exported stages give
            probabilities.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ValueError: If an argument does not fit the model, something else stands in the folder, the
            model takes pictures of any size, or the format has not all of its operations.
        ImportError: If the format needs a package that is not installed.

    Example:

    >>> folder = export_stages("ranet_cifar10", "ranet", exits=[1, 3, 6])  # doctest: +SKIP
    >>> predictor = EarlyExitPredictor.from_export(folder)  # doctest: +SKIP
    """
    if format not in FORMATS:
        raise ValueError(
            f"`format` is one of {', '.join(FORMATS)}. Received: {format!r}."
            f"{did_you_mean(format, FORMATS)}"
        )
    folder = pathlib.Path(folder)
    _check_place(folder)
    entry = _find_entry(model)
    network = KerasNetwork(model, from_logits)
    if thresholds is None and exits is None and temperatures is None:
        thresholds = network.thresholds
    if None in network.input_shape:
        raise ValueError(
            f"Stages are exported for pictures of one size, and {network.name!r} takes any: its "
            f"input has the shape {network.input_shape}. Build it for one, such as with "
            "`zoo.load(name, pretrained=True, input_shape=(48, 48, 3))`, or give a "
            "`keras.Input` of that shape to the model and take its outputs."
        )
    exits = choose_exits(exits, None, network.num_exits)
    exit_macs, full_macs = network.count_macs(exits, network.input_shape[:2])
    facts = {
        "package_version": keras_adaptive.__version__,
        "name": network.name,
        "format": format,
        "exits": exits,
        "num_exits": network.num_exits,
        "num_classes": network.num_classes,
        "class_names": choose_class_names(class_names, network),
        "thresholds": _per_exit(thresholds, network),
        "temperatures": None if temperatures is None else check_temperatures(
            temperatures, network.num_exits),
        "exit_macs": exit_macs,
        "full_macs": full_macs,
        "source": None if entry is None else {
            "title": entry.title, "paper": entry.paper, "license": entry.license,
            "weights_sha256": entry.weights["sha256"]},
    }

    def fill(partial):
        written = _WRITERS[format](network.stages(exits), network.gives_logits(exits), partial)
        stages = [_record(partial, number, format, *tensors)
                  for number, tensors in enumerate(written, start=1)]
        pictures, = stages[0].reads
        Manifest(**facts, stages=stages, input=InputRecord(
            pictures.shape[1:], pictures.dtype, rule=network.input_rule),
        ).write(partial / MANIFEST)
        # What cannot be read back is told now, and not where it is deployed.
        Manifest.from_file(partial / MANIFEST)

    write_folder_whole(folder, fill)
    return folder


def _check_place(folder):
    if folder.is_dir():
        if any(folder.iterdir()) and not is_export(folder):
            raise ValueError(
                f"An export replaces its folder as a whole, and {folder} holds other files, such "
                f"as {min(entry.name for entry in folder.iterdir())!r}. Give a new folder, or "
                "empty this one."
            )
    elif folder.exists():
        raise ValueError(f"`folder` is a file: {folder}. Give the path of a new folder.")


def _find_entry(model):
    """Return the zoo's entry of a model that was given by its name, or None."""
    from keras_adaptive import zoo

    is_name = isinstance(model, str) and not is_model_file(model)
    return zoo.find_entry(model) if is_name else None


def _per_exit(thresholds, network):
    if thresholds is None:
        return None
    values = check_threshold(thresholds, network.num_exits, network.name)
    if isinstance(values, float):
        values = (values,) * network.num_exits
    return tuple(min(value, NEVER) for value in values)  # JSON has no infinity


def _record(folder, number, format, reads, makes, output):
    names = [name.format(number) for name in FILES[format]]
    files = [StageFile(name, sha256(folder / name), (folder / name).stat().st_size)
             for name in names if (folder / name).is_file()]
    return StageRecord(files, reads, makes, output)


def _write_onnx(stages, is_logits, folder):
    """Write the files and return, for each stage, what it reads, what it makes and its output."""
    from keras_adaptive.graph.onnx_writer import write_stages

    programs = write_stages(stages, is_logits)
    for number, program in enumerate(programs, start=1):
        (folder / FILES["onnx"][0].format(number)).write_bytes(program.model)
    return [_onnx_tensors(program) for program in programs]


def _write_openvino(stages, is_logits, folder):
    from keras_adaptive.graph.onnx_writer import write_stages

    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "Export to OpenVINO needs the `openvino` package: "
            "`pip install keras_adaptive[openvino]`."
        ) from error
    core = openvino.Core()
    programs = write_stages(stages, is_logits)
    for number, program in enumerate(programs, start=1):
        path = folder / FILES["openvino"][0].format(number)
        openvino.save_model(core.read_model(model=program.model), path, compress_to_fp16=False)
    return [_onnx_tensors(program) for program in programs]


def _onnx_tensors(program):
    import onnx

    graph = onnx.load_model_from_string(program.model).graph
    tensors = {
        value.name: Tensor(value.name,
                           (None, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])),
                           "float32")
        for value in (*graph.input, *graph.output)
    }
    return ([tensors[name] for name in program.reads], [tensors[name] for name in program.makes],
            tensors[program.output])


def _write_saved_model(stages, is_logits, folder):
    return _write_with_tensorflow(
        stages, is_logits, lambda number, program: program.save(folder / f"stage{number}"))


def _write_litert(stages, is_logits, folder):
    def write(number, program):
        (folder / FILES["litert"][0].format(number)).write_bytes(program.to_litert())

    return _write_with_tensorflow(stages, is_logits, write)


def _write_with_tensorflow(stages, is_logits, write):
    from keras_adaptive.graph.tensorflow_writer import StageProgram

    written = []
    for number, (stage, is_logit) in enumerate(zip(stages, is_logits), start=1):
        _show(f"\rWriting stage {number} of {len(stages)} ...")
        program = StageProgram(stage, is_logit)
        write(number, program)
        num_classes = stage.specs[stage.exit_value].shape[-1]
        written.append((_tensors(program.reads), _tensors(program.makes),
                        Tensor(program.output, (None, num_classes), "float32")))
    _show("\n")
    return written


def _tensors(specs):
    # The stages take any number of pictures, also where the model takes a fixed one.
    return [Tensor(name, (None, *spec.shape[1:]), spec.dtype) for name, spec in specs.items()]


def _show(text):
    # Tracing and converting a network takes a while.
    if sys.stderr.isatty():
        print(text, end="", file=sys.stderr, flush=True)


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "saved_model": _write_saved_model,
            "litert": _write_litert}
