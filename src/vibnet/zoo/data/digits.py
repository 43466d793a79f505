"""Scikit-learn's handwritten digits: real images that are already on the machine."""

import torch
from torch import Tensor

from vibnet.errors import DataError
from vibnet.zoo.data.sets import SETS, Split
from vibnet.zoo.data.shuffle import permutation


def read_digits(split: Split) -> tuple[Tensor, Tensor]:
    """The 1,797 digits, of which we hold the last 360 of a fixed permutation out as test set.

    Scikit-learn names no test set. Ours is 20 %, rounded up, by ``permutation(1797, "digits")``;
    both parts keep that order.

    Args:
        split: Which part.

    Returns:
        Images, uint8 from 0 to 16, shape ``(n, 1, 8, 8)``, and labels, uint8, shape ``(n,)``; n
        is 1437 for training and 360 for the test.

    Raises:
        DataError: Scikit-learn is not installed.

    Source:
        E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, 1998.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn, which is not installed. "
            "Install it: pip install 'vibnet[demo]'."
        ) from error
    found = load_digits()
    images = torch.from_numpy(found.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(found.target).to(torch.uint8)
    shuffled = permutation(len(labels), "digits")
    held_out = SETS["digits"].counts["test"]
    index = shuffled[-held_out:] if split == "test" else shuffled[:-held_out]
    return images[index], labels[index]
