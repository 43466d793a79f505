"""Recipes: a name for a network, its data, its settings and what was published for it."""

from vibnet.recipes.catalog import RECIPES as RECIPES
from vibnet.recipes.catalog import Recipe as Recipe
from vibnet.recipes.run import run as run
