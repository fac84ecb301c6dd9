"""Is the adaptive network faster than a static one, or than two static ones in a row?

    python benchmarks/static_networks.py --data cifar10
    python benchmarks/static_networks.py --static resnet20 densenet100 --batch-size 1 256

Times on the same engine and pictures, in turns in one process:

- static networks: those of `keras.applications` at the size of the pictures, and the CIFAR networks
  `resnet<depth>` and `densenet<depth>` of this package. Their weights are random, so that only
  their speed means something; accuracies of trained ones are in the papers;
- `cascade`: a small ResNet answers, and pictures of which it is unsure go on to the whole adaptive
  network. As it is untrained, --passed-on sets the share that it passes on;
- the adaptive network, with the calibrated thresholds that halve its mean multiply-adds, and whole.

`whole_*` columns are one compiled program called batch after batch; `predict_*` are
`EarlyExitPredictor.predict`, which runs fewer pictures together where that fits the caches. Let
nothing else run meanwhile.
"""

import pathlib
import re

import keras
import numpy as np
from common import (
    RESULTS,
    add_num_pictures,
    classify,
    describe,
    halving_thresholds,
    make_parser,
    pictures_in_a_run,
    quantiles,
    save_rows,
)

from keras_adaptive import zoo
from keras_adaptive.evaluation.operating_points import spread
from keras_adaptive.graph import exit_macs
from keras_adaptive.graph.onnx_operations import UnsupportedOperationError
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.models.baselines import DenseNet, ResNet
from keras_adaptive.timing import compile_whole, in_batches, time_in_turns
from keras_adaptive.training.datasets import load_data

APPLICATIONS = ("MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0")
STATIC = (*APPLICATIONS, "resnet20", "resnet56", "resnet110", "densenet40", "densenet100")
_FAMILIES = {"resnet": ResNet, "densenet": DenseNet}


def build(name, input_shape, num_classes):
    """Return a static network with random weights.

    Args:
        name: string in `STATIC`, or `resnet<depth>` or `densenet<depth>` of another depth.
        input_shape: `(height, width, channels)`.
        num_classes: int.

    Raises:
        ValueError: If there is no such network, or it does not build at this size.
    """
    if name in APPLICATIONS:
        return getattr(keras.applications, name)(
            weights=None, input_shape=input_shape, classes=num_classes)
    match = re.fullmatch(r"(resnet|densenet)(\d+)", name)
    if match is None:
        raise ValueError(
            f"Static networks are {', '.join(APPLICATIONS)}, resnet<depth> and densenet<depth>. "
            f"Received: {name!r}."
        )
    return _FAMILIES[match[1]](int(match[2]), num_classes=num_classes, input_shape=input_shape,
                               normalization="cifar10", name=name)


class Cascade:
    """A small network, and the whole of a large one for pictures of which the small one is unsure.

    Args:
        small, large: functions that `compile_whole` returns; the small network gives logits.
        pictures: array of pictures that the threshold is chosen on.
        share: float, of those pictures to pass on.
        batch_size: int.
    """

    def __init__(self, small, large, pictures, share, batch_size):
        self._small, self._large, self._batch_size = small, large, batch_size
        confidences = self._confidences(in_batches(small, pictures, batch_size))
        self._threshold = np.quantile(confidences, share)
        self.passed_on = float((confidences < self._threshold).mean())

    def run(self, pictures):
        """Return the answers for pictures, batch after batch."""
        return in_batches(lambda batch: [self._answer(batch)], pictures, self._batch_size)

    def _answer(self, batch):
        answers = np.array(self._small(batch)[-1])
        unsure = np.flatnonzero(self._confidences(answers) < self._threshold)
        if len(unsure):
            answers[unsure] = self._large(batch[unsure])[-1]
        return answers

    @staticmethod
    def _confidences(logits):
        # The softmax of the largest logit.
        return 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


def time_all(model, threshold, static, small, shares, pictures, engine, batch_size, repeats):
    """Return a row per network: multiply-adds and times of a picture.

    Args:
        model: `MultiExitModel`, the adaptive network.
        threshold: as in `EarlyExitPredictor`.
        static: dict of models by name.
        small: model, the first of the cascade.
        shares: list of floats that the cascade passes on.
        pictures: uint8 array.
        engine: string in `ENGINES`.
        batch_size: int.
        repeats: int. Timed rounds.
    """
    adaptive = EarlyExitPredictor(model, threshold, engine=engine)
    whole, whole_macs = compile_whole(model, engine), exit_macs(model)[-1]
    calls, macs, passed_on = {}, {}, {}

    def add(name, way, num_macs, call):
        calls[name, way], macs[name] = call, num_macs

    for name, network in static.items():
        try:
            program = compile_whole(network, engine)
        except UnsupportedOperationError as error:
            print(f"{name} is left out: {error}")
            continue
        predictor = EarlyExitPredictor(network, engine=engine)
        num_macs = exit_macs(network)[-1]
        add(name, "whole", num_macs, lambda run=program: in_batches(run, pictures, batch_size))
        add(name, "predict", num_macs, lambda run=predictor: classify(run, pictures, batch_size))
    program, small_macs = compile_whole(small, engine), exit_macs(small)[-1]
    for share in shares:
        cascade = Cascade(program, whole, pictures, share, batch_size)
        name = f"cascade, {share:.0%} passed on"
        passed_on[name] = round(cascade.passed_on, 4)
        add(name, "whole",
            small_macs + cascade.passed_on * whole_macs,
            lambda run=cascade.run: run(pictures))
    add(model.name, "whole", whole_macs, lambda: in_batches(whole, pictures, batch_size))
    mean_macs = float(adaptive.predict(pictures, batch_size, verbose=False).macs.mean())
    add(f"{model.name}, adaptive", "predict", mean_macs,
        lambda: classify(adaptive, pictures, batch_size))
    times_ms = time_in_turns(calls, repeats, warmups=1)
    rows = {name: {"network": name, "engine": engine, "batch_size": batch_size,
                   "macs": round(number), "passed_on": passed_on.get(name, ""),
                   "num_pictures": len(pictures), "repeats": repeats,
                   "whole_p50_ms": "", "whole_p95_ms": "", "predict_p50_ms": "",
                   "predict_p95_ms": ""} for name, number in macs.items()}
    for (name, way), samples in times_ms.items():
        rows[name] |= {f"{way}_{quantile}": ms
                       for quantile, ms in quantiles(samples, len(pictures)).items()}
    return list(rows.values())


def main(argv=None):
    parser = make_parser(__doc__, ["onnxruntime", "openvino"], [1, 16, 256], 5)
    parser.add_argument("--static", nargs="+", default=list(STATIC),
                        help=f"static networks; default: {' '.join(STATIC)}")
    parser.add_argument("--small-depth", type=int, default=8, help="of the cascade's ResNet")
    parser.add_argument("--passed-on", type=float, nargs="+", default=[0.2, 0.4],
                        help="shares of pictures that the cascade passes on")
    add_num_pictures(parser, 512)
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS / "static_networks.csv")
    arguments = parser.parse_args(argv)
    model = zoo.load(arguments.model, pretrained=True)
    threshold = halving_thresholds(arguments.model, model)
    shape, num_classes = tuple(model.inputs[0].shape[1:]), model.outputs[0].shape[-1]
    static = {name: build(name, shape, num_classes) for name in arguments.static}
    small = build(f"resnet{arguments.small_depth}", shape, num_classes)
    test = load_data(arguments.data).test
    machine, rows = describe("onnxruntime", "openvino"), []
    for engine in arguments.engine:
        for batch_size in arguments.batch_size:
            pictures = spread(test, pictures_in_a_run(arguments.num_pictures, batch_size)).x
            for row in time_all(model, threshold, static, small, arguments.passed_on, pictures,
                                engine, batch_size, arguments.repeats):
                rows.append(row | machine)
                times = [f"{way} {row[f'{way}_p50_ms']:.3f} ms" for way in ("whole", "predict")
                         if row[f"{way}_p50_ms"] != ""]
                print(f"{engine}, batch {batch_size}, {row['network']}: {row['macs'] / 1e6:.1f} M "
                      f"multiply-adds, {', '.join(times)} a picture", flush=True)
    save_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
