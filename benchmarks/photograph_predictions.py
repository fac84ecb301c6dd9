"""What does a network say to real photographs, and how often is it right?

    python benchmarks/photograph_predictions.py photographs

The folder has ImageNet's form, `<wnid>/*.JPEG`, and holds `LOC_synset_mapping.txt`, which says the
names of the 1000 classes; `--names` says where else. Photographs of classes that the network does
not know are left out, and so are classes whose name ImageNet has twice. Of the rest top-1 and top-5
accuracy are written, with the thresholds that the predictor takes by default and without early
exits; some of them, evenly spread over the sorted files whatever the network says, are drawn with
the three likeliest names, the exit that answered and its cost. Where the photographs are from the
part that the network was trained on, the accuracies are of pictures it has seen.
"""

import argparse
import collections
import pathlib
import sys
import textwrap

import numpy as np
from common import RESULTS, describe, save_rows

from keras_adaptive import EarlyExitPredictor
from keras_adaptive.content import DEFAULT_MODEL
from keras_adaptive.evaluation.thresholds import NEVER
from keras_adaptive.picture_files import InputRule, find_files, read_picture
from keras_adaptive.plots import new_figure, save_figure
from keras_adaptive.training.photograph_tree import NAMES

SIDE, GAP, CAPTION, COLUMNS = 1.9, 0.2, 1.25, 6  # inches, but for the number of columns
SHOWN_PIXELS = 256
RIGHT, WRONG, PLAIN = "#2a7f3f", "#c0392b", "#555555"


def known_photographs(folder, names, class_names):
    """Return the files of classes that the network knows, their labels, and how many others.

    Args:
        folder: path with a folder per wnid.
        names: path of a file with lines `wnid name, other name`.
        class_names: sequence of strings, the network's.
    """
    lines = names.read_text(encoding="utf-8").splitlines()
    first = {wnid: text.split(",")[0] for wnid, _, text in (line.partition(" ") for line in lines)}
    counts = collections.Counter(first.values())
    numbers = {name: number for number, name in enumerate(class_names) if counts[name] == 1}
    files, labels, num_others = [], [], 0
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        found = find_files(place)
        number = numbers.get(first.get(place.name))
        if number is None:
            num_others += len(found)
        else:
            files += found
            labels += [number] * len(found)
    if not files:
        raise ValueError(f"{folder} has no photographs of the classes {class_names[:3]}, …, in "
                         f"folders that {names} names.")
    return files, np.array(labels), num_others


def accuracies(prediction, labels):
    """Return the shares of pictures whose label is the likeliest class, and among five."""
    order = np.argsort(-prediction.probabilities, axis=1, kind="stable")[:, :5]
    right = order == labels[:, None]
    return float(right[:, 0].mean()), float(right.any(axis=1).mean())


def draw(files, prediction, labels, title):
    """Return a figure of photographs with the three likeliest names and the exit that answered."""
    rows = -(-len(files) // COLUMNS)
    width, height = COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + CAPTION) + 0.6
    figure = new_figure(width, height)
    figure.text(GAP / width, 1 - 0.3 / height, title, fontsize=13, weight="bold", va="center")
    rule = InputRule((SHOWN_PIXELS, SHOWN_PIXELS), 3)
    for position, (file, answer, label) in enumerate(zip(files, prediction, labels)):
        left = GAP + position % COLUMNS * (SIDE + GAP)
        top = 0.6 + position // COLUMNS * (SIDE + CAPTION)
        axes = figure.add_axes((left / width, 1 - (top + SIDE) / height, SIDE / width,
                                SIDE / height))
        axes.imshow(read_picture(file, rule))
        axes.set(xticks=[], yticks=[])
        color = RIGHT if answer.class_id == label else WRONG
        for spine in axes.spines.values():
            spine.set(color=color, linewidth=3)
        truth = prediction.class_names[label]
        texts = [(truth, PLAIN)]
        texts += [(f"{share:.0%} {name}", RIGHT if name == truth else "black")
                  for name, share in answer.top(3)]
        texts.append((f"exit {answer.exit}, {answer.cost_share:.0%} of the cost", PLAIN))
        for line, (text, color) in enumerate(texts):
            figure.text(left / width, 1 - (top + SIDE + 0.15 + 0.2 * line) / height,
                        textwrap.shorten(text, 30, placeholder="…"), fontsize=8, color=color,
                        va="center", weight="bold" if line == 0 else "normal")
    return figure


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="<wnid>/*.JPEG")
    parser.add_argument("--names", type=pathlib.Path, default=None,
                        help=f"lines of wnid and names; default: {NAMES} in the folder")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name in the zoo")
    parser.add_argument("--engine", default="auto", help="of the predictor; default: %(default)s")
    parser.add_argument("--num-shown", type=int, default=24,
                        help="photographs drawn; default: %(default)s")
    parser.add_argument("--sheet", type=pathlib.Path, default="photograph_predictions.png",
                        help="the drawing; default: %(default)s")
    parser.add_argument("--output", type=pathlib.Path,
                        default=RESULTS / "photograph_predictions.csv")
    arguments = parser.parse_args(argv)
    predictor = EarlyExitPredictor(arguments.model, engine=arguments.engine)
    files, labels, num_others = known_photographs(
        arguments.folder, arguments.names or arguments.folder / NAMES, predictor.class_names)
    early = predictor.predict(files)
    predictor.threshold = NEVER
    whole = predictor.predict(files)
    rows = []
    for what, prediction in (("default thresholds", early), ("whole network", whole)):
        top1, top5 = accuracies(prediction, labels)
        summary = prediction.summary()
        print(f"{what:18} top-1 {top1:.1%}, top-5 {top5:.1%} of {len(files)} photographs of "
              f"{len(set(labels.tolist()))} classes ({num_others} of others left out); {summary}",
              file=sys.stderr)
        rows.append({"model": predictor.name, "what": what, "photographs": len(files),
                     "classes": len(set(labels.tolist())), "left_out": num_others,
                     "top1": round(top1, 4), "top5": round(top5, 4),
                     "mean_macs": round(summary.mean_macs),
                     "cost_share": round(summary.mean_cost_share, 4),
                     "folder": arguments.folder.name, **describe()})
    save_rows(arguments.output, rows)
    shown = np.unique(np.linspace(0, len(files) - 1, arguments.num_shown).astype(int))
    save_figure(draw([files[row] for row in shown], early[shown], labels[shown],
                     f"{predictor.name}: {rows[0]['top1']:.0%} of {len(files)} photographs right, "
                     f"for {rows[0]['cost_share']:.0%} of the whole network's work"),
                arguments.sheet, dpi=100)


if __name__ == "__main__":
    main()
