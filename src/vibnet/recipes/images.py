"""Image sets as training data: split, converted, augmented, in a fixed order."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vibnet.zoo import data as sets

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Preparation:
    """How raw images become what a network reads.

    Attributes:
        normalise: subtract the training images' mean and divide by their deviation, per channel;
            else numbers in [0, 1].
        crop: pixels of padding for random crops while training; 0 for none.
        flip: mirror half of the images while training.
    """

    normalise: bool = False
    crop: int = 0
    flip: bool = False


class Images:
    """A data set for `vibnet.fit`: training and validation images in memory, test images on disk.

    Args:
        name: of the set, see `vibnet.zoo.data.SETS`.
        batch: images in a step.
        preparation: of the images.
        validation: images held out of the training set; 0 to train on all of them, and then
            "validation" goes over training images, which says nothing of new ones.
        seed: of order and augmentation; the split is always the same.
        device: where the images are kept.
        folder: of the files; by default that in the environment variable VIBNET_DATA.
        download: fetch what is missing.

    Raises:
        DataError: the set is not there.
    """

    SHOWN = 1000  # training images that stand in for validation when none is held out

    def __init__(
        self,
        name: str,
        batch: int,
        preparation: Preparation = Preparation(),
        validation: int = 0,
        seed: int = 0,
        device: str = "cpu",
        folder: Path | None = None,
        download: bool = False,
    ) -> None:
        whole = sets.load(name, folder, download)
        train, held = whole.split(validation) if validation else (whole, whole)
        self.name, self.batch, self.seed = name, batch, seed
        self.preparation, self.device = preparation, device
        self._place = folder, download
        self._moments = sets.moments(train.images, train.peak) if preparation.normalise else None
        self._train = self._prepared(train)
        shown = slice(None if validation else self.SHOWN)
        images, labels = self._prepared(held)
        self._held = images[shown], labels[shown]
        self.sizes = {"train": len(train), "validation": validation}
        self.example = self._train[0][:2].clone()
        self.steps = -(-len(train) // batch)

    def _prepared(self, part: sets.DataSet) -> tuple[Tensor, Tensor]:
        images = sets.as_float(part.images, part.peak)
        if self._moments is not None:
            images = sets.normalise(images, *self._moments)
        return images.to(self.device), part.labels.to(self.device)

    def train(self, epoch: int) -> Batches:
        """Augmented training batches; a function of the seed and the epoch."""
        images, labels = self._train
        order = sets.order(len(images), self.seed, epoch)
        key = hashlib.sha256(f"augment {self.seed} {epoch}".encode()).digest()
        random = torch.Generator(self.device).manual_seed(int.from_bytes(key[:7], "little"))
        for x, y in sets.batches(images, labels, self.batch, indices=order):
            yield self._augmented(x, random), y

    def _augmented(self, images: Tensor, random: torch.Generator) -> Tensor:
        if self.preparation.crop:
            images = sets.pad_crop(images, self.preparation.crop, random)
        return sets.flip(images, random) if self.preparation.flip else images

    def validation(self) -> Batches:
        """Held-out batches, as they are."""
        return sets.batches(*self._held, 1000)

    def test(self) -> Batches:
        """The test batches. Opened once, when all choices are made and all epochs are over."""
        folder, download = self._place
        return sets.batches(*self._prepared(sets.load_test(self.name, folder, download)), 1000)
