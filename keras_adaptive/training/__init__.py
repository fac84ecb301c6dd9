"""Training from recipes: data, augmentation, resumable runs."""

from keras_adaptive.training.recipe import Phase, Recipe
from keras_adaptive.training.run import train

__all__ = ["Phase", "Recipe", "train"]
