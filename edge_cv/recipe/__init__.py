"""Recipes: what a run does, as a page of Python."""

from edge_cv.recipe.recipe import *  # noqa: F403
