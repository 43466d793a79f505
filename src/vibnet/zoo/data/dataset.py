"""Images and labels in memory, and the split into training and validation."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vibnet.errors import ConfigError
from vibnet.zoo.data.shuffle import permutation


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DataSet:
    """Images and labels of one split.

    Args:
        name: Of the set, with the part behind it where it is one: ``"mnist"``, ``"mnist/test"``.
        images: Raw, uint8, shape ``(n, c, h, w)``.
        labels: int64, shape ``(n,)``, each from 0 up to `classes` - 1.
        classes: Number of classes.
        peak: Largest raw value an image can hold: white, for `as_float`.

    Raises:
        ConfigError: Dtypes or shapes are others, or a label is no class.

    >>> images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    >>> DataSet(name="blank", images=images, labels=torch.tensor([0, 1, 1, 0]), classes=2)
    DataSet('blank', 4 images of 1 x 2 x 2, 2 classes)
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: int
    peak: int = 255

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ConfigError(
                f"DataSet {self.name!r}: the images are {images.dtype} of shape "
                f"{tuple(images.shape)}. They must be uint8 of shape (n, c, h, w)."
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ConfigError(
                f"DataSet {self.name!r}: the labels are {labels.dtype} of shape "
                f"{tuple(labels.shape)}. They must be int64, one for each of {len(images)} images."
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ConfigError(
                f"DataSet {self.name!r}: labels run from {int(labels.min())} to "
                f"{int(labels.max())}, but there are {self.classes} classes, counted from 0."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.images.shape[1:]))
        return f"DataSet({self.name!r}, {len(self)} images of {size}, {self.classes} classes)"

    def split(self, validation: int = 10_000, seed: int = 0) -> tuple["DataSet", "DataSet"]:
        """Take a validation set out: what choices are made on, so that the test set stays shut.

        Which images are taken depends on the number of images and the seed alone, on every machine;
        classes are not balanced. Both parts keep the order of the whole.

        Args:
            validation: Number of images to take out.
            seed: Which ones.

        Returns:
            What is left for training, and the validation set.

        Raises:
            ConfigError: Nothing would be taken out, or nothing would be left.
        """
        if not 0 < validation < len(self):
            raise ConfigError(
                f"{self!r}.split(validation={validation}): the number must be from 1 to "
                f"{len(self) - 1}, so that both parts hold images."
            )
        shuffled = permutation(len(self), f"split {seed}")
        taken = shuffled[:validation].sort().values
        left = shuffled[validation:].sort().values
        return self._part("train", left), self._part("validation", taken)

    def _part(self, part: str, index: Tensor) -> "DataSet":
        index = index.to(self.images.device)
        name = f"{self.name}/{part}"
        return replace(self, name=name, images=self.images[index], labels=self.labels[index])
