"""Recipes: a page of Python that says what a run does.

    from edge_cv.recipe import Data, Model, Recipe
    RECIPE = Recipe("mine", Model("mobilenet_v2", weights="imagenet"), Data(measure="photos"))

Importing it loads neither numpy nor TensorFlow.
"""

from edge_cv.recipe.compression import (
    INT8_VALUES,
    ChannelPrune,
    FineTuning,
    Prune,
    Qat,
    WeightClustering,
    check_together,
)
from edge_cv.recipe.deprecated import Cluster, Device, Explain, Tuning
from edge_cv.recipe.device import TargetDevice
from edge_cv.recipe.evaluation import Analysis, Limits, Measure
from edge_cv.recipe.fields import with_settings
from edge_cv.recipe.files import device_recipes, load, shipped
from edge_cv.recipe.model import Data, Model
from edge_cv.recipe.output import Output
from edge_cv.recipe.recipe import Recipe
from edge_cv.recipe.training import (
    FIELDS_WITHOUT_EFFECT,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    Augment,
    Fit,
    Phase,
    Teacher,
    fine_tuning,
)

__all__ = [
    "FIELDS_WITHOUT_EFFECT",
    "INT8_VALUES",
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "Analysis",
    "Augment",
    "ChannelPrune",
    "Cluster",
    "Data",
    "Device",
    "Explain",
    "FineTuning",
    "Fit",
    "Limits",
    "Measure",
    "Model",
    "Output",
    "Phase",
    "Prune",
    "Qat",
    "Recipe",
    "TargetDevice",
    "Teacher",
    "Tuning",
    "WeightClustering",
    "check_together",
    "device_recipes",
    "fine_tuning",
    "load",
    "shipped",
    "with_settings",
]
