"""Use an installed package as a stranger would: list, load, classify. `make wheel-test` runs this.

Nothing of the repository is on the path but this file's folder.
"""

import pathlib
import sys

import keras_adaptive
from keras_adaptive import EarlyExitPredictor, content, demo, recipes, zoo

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def main():
    package = pathlib.Path(keras_adaptive.__file__).resolve().parent
    prefix = pathlib.Path(sys.prefix).resolve()
    assert package.is_relative_to(prefix), f"{package} is not what was installed in {prefix}"
    for kind in ("zoo", "recipes"):
        shipped, original = content.folder(kind), REPOSITORY / kind
        assert shipped.is_relative_to(package), f"{shipped} is outside of the package"
        names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                        if path.is_file() and path.suffix in (".json", ".h5", ".toml", ".csv"))
                 for folder in (shipped, original)]
        assert names[0] == names[1], f"{kind} holds {names[0]}, the repository {names[1]}"

    print("recipes:", *(recipes.load(name).name for name in recipes.list_recipes()))
    print("trained:", *(model.name for model in zoo.list_models() if model.has_weights))
    picture = sorted(demo.FOLDER.glob("*.png"))[0]
    prediction = EarlyExitPredictor(threshold=0.8).predict([picture])
    print(f"{picture.name}: {prediction.labels[0]}, exit {prediction.exits[0]} of "
          f"{prediction.num_exits}, confidence {prediction.confidences[0]:.2f}")
    assert len(prediction) == 1


if __name__ == "__main__":
    main()
