"""A network as a folder of exported stages, which runs without Keras and any backend of it."""

import dataclasses
import functools
import importlib.util
import pathlib

from keras_adaptive.manifest import MANIFEST, Manifest, read_stage_files
from keras_adaptive.names import did_you_mean

# The engines that run a format, the preferred one first, and the packages that they need.
_ENGINES = {
    "onnx": ("onnxruntime", "openvino", "openvino_bfloat16"),
    "openvino": ("openvino", "openvino_bfloat16"),
    "saved_model": ("saved_model",),
    "litert": ("litert",),
}
_PACKAGES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "openvino_bfloat16": ("openvino",),
    "saved_model": ("tensorflow",),
    "litert": ("ai_edge_litert", "tensorflow"),
}
_EXTRAS = {"onnxruntime": "onnx", "saved_model": "tensorflow", "litert": "tensorflow"}


@dataclasses.dataclass(frozen=True, repr=False)
class Program:
    """The files of a stage in memory, for `load` of an engine.

    Attributes:
        files: dict from path in the folder to bytes, the file that the others belong to first.
        reads: tuple of strings, the names of what the stage takes.
        makes: tuple of strings, the names of what it makes for later stages.
        output: string, the name of the probabilities.
    """

    files: dict
    reads: tuple
    makes: tuple
    output: str

    @property
    def model(self):
        """Bytes of the first file."""
        return next(iter(self.files.values()))

    @property
    def weights(self):
        """Bytes of the weights, which OpenVINO keeps in a second file; empty without one."""
        return b"".join(list(self.files.values())[1:])


class ExportedNetwork:
    """A `Network` that is a folder of exported stages; `export_stages` makes one.

    Args:
        folder: path of the folder.
        manifest: `Manifest` of what is in it.

    Attributes:
        exits: tuple of ints. The exits in use, which are the ones that were exported.
        thresholds: tuple of floats, one per exit of the network, or `None`.
        temperatures: tuple of floats, one per exit of the network, or `None`.
        source: dict or `None`. Where the weights come from, and their licence.
    """

    def __init__(self, folder, manifest):
        self.folder = pathlib.Path(folder)
        self.name = manifest.name
        self.input_shape = manifest.input.shape
        self.input_dtype = manifest.input.dtype
        self.input_rule = manifest.input.rule
        self.exits = manifest.exits
        self.num_exits = manifest.num_exits
        self.num_classes = manifest.num_classes
        self.class_names = manifest.class_names
        self.thresholds = manifest.thresholds
        self.temperatures = manifest.temperatures
        self.source = manifest.source
        self._manifest = manifest

    @classmethod
    def from_folder(cls, folder):
        """Read the manifest of a folder; the files of the stages are read by `make_engine`.

        Args:
            folder: path of a folder that `export_stages` wrote.

        Raises:
            ValueError: If there is no manifest, or it is not valid; see `Manifest.from_file`.
        """
        folder = pathlib.Path(folder)
        return cls(folder, Manifest.from_file(folder / MANIFEST))

    @property
    def format(self):
        """string. The format of the files, such as `"onnx"`."""
        return self._manifest.format

    def count_macs(self, exits, size):
        """See `Network`. The exits are some of those that were exported, and the size is fixed."""
        macs = dict(zip(self.exits, self._manifest.exit_macs))
        return [macs[number] for number in exits], self._manifest.full_macs

    def make_engine(self, engine="auto"):
        """Return an engine that is ready to run the stages.

        Args:
            engine: `"auto"`, the first that is installed of those that run the format of the files;
                or the name of one. `"onnx"` files run on `"onnxruntime"`, `"openvino"` and
                `"openvino_bfloat16"`; `"openvino"` files on the latter two; `"saved_model"` and
                `"litert"` files on the engines of these names.

        Raises:
            ValueError: If the engine does not run the format, or a file is not the one that was
                exported: its size and sha256 are checked before it is parsed.
            ImportError: If a package is missing.
        """
        make = _factory(self._choose(engine))
        programs = [
            Program(read_stage_files(self.folder, stage), _names(stage.reads),
                    _names(stage.makes), stage.output.name)
            for stage in self._manifest.stages
        ]
        ready = make()
        try:
            ready.load(programs)
        except ImportError:
            raise
        except Exception as error:  # the runtimes have kinds of their own
            raise ValueError(
                f"The stages in {self.folder} cannot be loaded: {error}. Their files are as the "
                f"manifest has them, so that one of them is no sound {self.format!r} file, or "
                "needs a newer runtime; export again."
            ) from error
        return ready

    def _choose(self, engine):
        able = _ENGINES[self.format]
        if engine != "auto" and engine not in able:
            raise ValueError(
                f'`engine` is "auto" or one that runs {self.format!r} files: {", ".join(able)}. '
                f"Received: {engine!r}.{did_you_mean(engine, able)}"
            )
        for name in able if engine == "auto" else (engine,):
            if any(importlib.util.find_spec(package) for package in _PACKAGES[name]):
                return name
        name = able[0] if engine == "auto" else engine
        extra = _EXTRAS.get(name, "openvino")
        raise ImportError(
            f"{self.folder} holds {self.format!r} files, which need the package "
            f"{' or '.join(_PACKAGES[name])}: `pip install keras_adaptive[{extra}]`."
        )


def _names(tensors):
    return tuple(tensor.name for tensor in tensors)


def _factory(name):
    if name == "saved_model":
        from keras_adaptive.inference.engines.saved_model_engine import SavedModelEngine

        return SavedModelEngine
    if name == "litert":
        from keras_adaptive.inference.engines.litert_engine import LiteRTEngine

        return LiteRTEngine
    from keras_adaptive.inference.engines import make_engine

    return functools.partial(make_engine, name)
