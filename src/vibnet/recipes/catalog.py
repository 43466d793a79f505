"""The recipes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from vibnet.config import Settings
from vibnet.errors import ConfigError
from vibnet.recipes.images import Preparation
from vibnet.recipes.published import LENET5, LENET300, Row
from vibnet.zoo import LeNet5Caffe, LeNet300100, ResidualCNN


@dataclass(frozen=True)
class Recipe:
    """A run by name.

    Attributes:
        name: what the command calls it.
        about: one line.
        network: makes the dense network.
        data: name of an image set.
        settings: all choices; made on held-out training images.
        options: of `vibnet.attach`.
        preparation: of the images.
        validation: training images held out, unless the run is final.
        published: figures in print, by method: r_W in percent, multiply-adds in millions, r_N in
            percent, error in percent.
    """

    name: str
    about: str
    network: Callable[[], nn.Module]
    data: str
    settings: Settings
    options: Mapping[str, Any] = field(default_factory=dict)
    preparation: Preparation = field(default_factory=Preparation)
    validation: int = 10_000
    published: Mapping[str, Row] = field(default_factory=dict)


def _digits_mlp() -> nn.Module:
    layers = (nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    return nn.Sequential(nn.Flatten(), *layers)


def _digits_cnn() -> nn.Module:
    def block(i: int, o: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()

    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    return nn.Sequential(*block(1, 32), *block(32, 64), nn.MaxPool2d(2), *block(64, 64), *head)


def _small_residual() -> nn.Module:
    return ResidualCNN(width=16, blocks=(1, 1, 1))


_ALL = (
    Recipe(
        "digits-mlp",
        "64-300-100-10 on scikit-learn's handwritten digits, seconds",
        _digits_mlp,
        "digits",
        Settings(batch=64, dense_epochs=60, gate_epochs=100, gamma=1e-3),
        validation=300,
    ),
    Recipe(
        "digits-cnn",
        "a small batch-normed CNN on scikit-learn's handwritten digits, a minute",
        _digits_cnn,
        "digits",
        Settings(batch=64, dense_epochs=30, gate_epochs=60, gamma=1e-3, channels_last=True),
        validation=300,
    ),
    Recipe(
        "lenet300-mnist",
        "LeNet-300-100 on MNIST, its pixels gated too",
        LeNet300100,
        "mnist",
        Settings(dense_epochs=50, gate_epochs=250, gamma=3.5e-5, weight_decay=2e-4),
        {"inputs": True, "weights": {"inputs": 4.0, "fc1": 4.0, "fc2": 2.0}},
        published=LENET300,
    ),
    Recipe(
        "lenet5-mnist",
        "LeNet-5-Caffe on MNIST, its flattened features gated too",
        LeNet5Caffe,
        "mnist",
        Settings(
            dense_epochs=5,
            gate_epochs=50,
            tune_epochs=5,
            gate_lr=2e-2,
            gamma=1e-5,
            channels_last=True,
        ),
        {
            "features": ["fc1"],
            "weights": {"conv1": "area", "conv2": "area", "fc1:features": 14.0, "fc1": 14.0},
        },
        published=LENET5,
    ),
    Recipe(
        "table1-vibnet",
        "LeNet-300-100 on MNIST at the size of the paper's table 1, its pixels gated too",
        LeNet300100,
        "mnist",
        Settings(
            dense_epochs=50,
            gate_epochs=300,
            gamma=6e-4,
            gamma_rise=0.7,
            weight_decay=2e-4,
            ema=0.999,
        ),
        {"inputs": True, "weights": {"inputs": 1.0, "fc1": 1.5, "fc2": 0.8}},
        published=LENET300,
    ),
    Recipe(
        "table2-vibnet",
        "LeNet-5-Caffe on MNIST at the size of the paper's table 2, its features gated too",
        LeNet5Caffe,
        "mnist",
        Settings(
            dense_epochs=5,
            gate_epochs=120,
            gate_lr=2e-2,
            gamma=1.65e-5,
            ema=0.999,
            channels_last=True,
        ),
        {
            "features": ["fc1"],
            "weights": {"conv1": "area", "conv2": 140.0, "fc1:features": 20.0, "fc1": 30.0},
        },
        published=LENET5,
    ),
    Recipe(
        "rescnn-fashion",
        "a small residual CNN on Fashion-MNIST",
        _small_residual,
        "fashion-mnist",
        Settings(
            batch=128,
            dense_epochs=8,
            gate_epochs=16,
            tune_epochs=2,
            gamma=1.1e-3,
            channels_last=True,
            dense_schedule="cosine",
        ),
        {"weights": "macs"},
        Preparation(crop=2, flip=True),
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}. There are: {', '.join(RECIPES)}.")
    return RECIPES[name]
