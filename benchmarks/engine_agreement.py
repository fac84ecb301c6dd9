"""Do all engines give the same answers?

    python benchmarks/engine_agreement.py
    python benchmarks/engine_agreement.py --engine openvino_bfloat16 --threshold 0.8

Classifies the whole test part on each engine, and on Keras as the reference. In float32 a picture
may leave at another exit only where a confidence lies within 1e-5 of a threshold: both numbers are
in the row, and that of other labels. In bfloat16 the accuracy and the agreement count.
"""

import numpy as np
from common import RESULTS, describe, halving_thresholds, make_parser, save_rows

from keras_adaptive import ExitOutputs, zoo
from keras_adaptive.inference.predictor import EarlyExitPredictor
from keras_adaptive.training.datasets import load_data

CLOSE = 1e-5


def compare(model, split, thresholds, engines):
    """Return one row per engine.

    Args:
        model: `MultiExitModel`.
        split: `Split` of test pictures.
        thresholds: sequence of floats, one per exit.
        engines: list of strings in `ENGINES`.
    """
    reference = EarlyExitPredictor(model, thresholds, engine="keras").predict(split.x, 128)
    # How near a threshold each picture came, at the exits that it reached.
    confidences = ExitOutputs.from_model(model, split.x, split.y).confidences[:-1]
    distances = np.abs(confidences - np.float32(thresholds[:-1])[:, None])
    reached = np.arange(1, model.num_exits)[:, None] <= reference.exits
    nearest = np.where(reached, distances, np.inf).min(axis=0)
    rows = []
    for engine in engines:
        prediction = EarlyExitPredictor(model, thresholds, engine=engine).predict(split.x, 128)
        differs = prediction.exits != reference.exits
        same = ~differs
        rows.append({
            "model": model.name, "engine": engine, "num_pictures": len(split),
            "other_exits": int(differs.sum()),
            "near_a_threshold": int((nearest < CLOSE).sum()),
            "other_labels": int((prediction.class_ids != reference.class_ids).sum()),
            "largest_difference": float(np.abs(
                prediction.probabilities[same] - reference.probabilities[same]).max()),
            "accuracy": float((prediction.class_ids == split.y).mean()),
            "keras_accuracy": float((reference.class_ids == split.y).mean()),
        })
    return rows


def main(argv=None):
    parser = make_parser(__doc__, ["onnxruntime", "openvino", "openvino_bfloat16"])
    parser.add_argument("--threshold", type=float, default=None,
                        help="by default the calibrated ones that halve the mean multiply-adds")
    parser.add_argument("--output", default=RESULTS / "engine_agreement.csv")
    arguments = parser.parse_args(argv)
    model = zoo.load(arguments.model, pretrained=True)
    thresholds = halving_thresholds(arguments.model, model)
    if arguments.threshold is not None:
        thresholds = [arguments.threshold] * model.num_exits
    test = load_data(arguments.data).test
    rows = compare(model, test, thresholds, arguments.engine)
    machine = describe("onnxruntime", "openvino")
    for row in rows:
        print(f"{row['engine']}: {row['other_exits']} of {row['num_pictures']} pictures leave at "
              f"another exit than on Keras ({row['near_a_threshold']} lie within {CLOSE:g} of a "
              f"threshold), {row['other_labels']} have another label; largest difference "
              f"{row['largest_difference']:.1e}; accuracy {row['accuracy']:.4f} (Keras "
              f"{row['keras_accuracy']:.4f})", flush=True)
    save_rows(arguments.output, [row | machine for row in rows])


if __name__ == "__main__":
    main()
