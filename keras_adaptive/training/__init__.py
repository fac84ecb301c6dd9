"""Training from recipes: data, augmentation, resumable runs."""

from keras_adaptive.training.recipe import Recipe
from keras_adaptive.training.recipe_tables import Phase
from keras_adaptive.training.run import train
from keras_adaptive.training.statistics import reestimate_statistics

__all__ = ["Phase", "Recipe", "reestimate_statistics", "train"]
