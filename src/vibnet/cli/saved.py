"""The networks of a run that is over, from its folder."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vibnet.cli import given
from vibnet.errors import ConfigError
from vibnet.recipes.catalog import RECIPES
from vibnet.report.record import Recorded
from vibnet.surgery.loading import load
from vibnet.zoo.data import SETS


@dataclass(frozen=True)
class Networks:
    """Both networks of a run, and what they are called with.

    Attributes:
        dense: as it was before training: for its costs only, its weights are fresh.
        small: as it was saved.
        example: a batch.
    """

    dense: nn.Module
    small: nn.Module
    example: Any


def networks(
    recorded: Recorded,
    model: str | None = None,
    data: str | None = None,
    shape: str | None = None,
) -> Networks:
    """Rebuild the networks of a run.

    Nothing that the folder names is imported: a person's own model must be named again.

    Args:
        recorded: of a run that is over.
        model: factory of the model; without it, the recipe's.
        data: factory of data whose example is used.
        shape: of an example of random numbers.

    Raises:
        ConfigError: it is not known how to make the model or its example.
        ArtefactError: the small model is not whole, or was cut from another model.
    """
    name, notes = recorded.run["name"], recorded.run["notes"]
    recipe = None if notes.get("model") else RECIPES.get(name)
    if model is None and recipe is None:
        named = f" The run was made with --model {notes['model']}." if notes.get("model") else ""
        raise ConfigError(f"{recorded.folder} is not the run of a recipe. Give --model.{named}")
    if data is not None and shape is not None:
        raise ConfigError("give --data or --example, not both.")

    def fresh() -> nn.Module:
        if model is not None:
            return given.model(model)
        assert recipe is not None
        with torch.random.fork_rng(devices=[]):
            return recipe.network()

    if shape is not None:
        example = given.example(shape)
    elif data is not None:
        example = given.data(data).example
    elif recipe is not None:
        published = SETS[recipe.data].shape
        example = torch.rand(2, *published, generator=torch.Generator().manual_seed(0))
    else:
        raise ConfigError(
            "give --data or --example: it is not known what the model is called with."
        )
    small = load(recorded.model, fresh())
    return Networks(fresh().eval(), small.eval(), example)
