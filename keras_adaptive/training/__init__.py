"""Training from recipes: data, augmentation, resumable runs."""

from keras_adaptive.training.recipe import Recipe
from keras_adaptive.training.recipe_tables import Phase
from keras_adaptive.training.run import train

__all__ = ["Phase", "Recipe", "train"]
