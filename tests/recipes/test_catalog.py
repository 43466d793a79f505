import json

import pytest
import torch

from vibnet import attach
from vibnet.errors import ConfigError
from vibnet.recipes.catalog import RECIPES, recipe
from vibnet.zoo.data.sets import SETS

every_recipe = pytest.mark.parametrize("found", RECIPES.values(), ids=RECIPES)


def test_the_recipes_are_these():
    assert list(RECIPES) == [
        "digits-mlp",
        "digits-cnn",
        "lenet300-mnist",
        "lenet5-mnist",
        "table1-vibnet",
        "table2-vibnet",
        "rescnn-fashion",
    ]


@every_recipe
def test_a_recipe_is_of_known_data_and_a_network_that_reads_it(found):
    published = SETS[found.data]
    example = torch.randn(2, *published.shape)
    model = found.network()
    assert model(example).shape == (2, published.classes)
    gated = attach(model, example, **found.options)
    assert len(gated.sites) >= 2
    assert 0 < found.validation < published.counts["train"]
    json.dumps(dict(found.options))
    assert found.about
    assert recipe(found.name) is found


@every_recipe
def test_a_recipe_makes_its_network_from_the_seed(found):
    def made(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in found.network().parameters()])

    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))


@every_recipe
def test_figures_in_print_are_percents_and_counts(found):
    for figures in found.published.values():
        assert len(figures) == 4
        assert all(f is None or f > 0 for f in figures)


def test_recipes_are_found_by_name():
    with pytest.raises(ConfigError, match=r"there is no recipe 'lenet'. There are: digits-mlp, "):
        recipe("lenet")
