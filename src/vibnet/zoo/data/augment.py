"""Random crops and flips of a whole batch at once, on its device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vibnet.errors import ConfigError


def pad_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Surround every image with zeros and cut out its size again, at a random place.

    Places are uniform, and drawn for every image by itself. On raw images the border is black, as
    in the usual recipe for CIFAR (4 pixels); after `normalise` it would be the mean colour.

    Args:
        images: Shape ``(n, c, h, w)``, any dtype.
        padding: Pixels on each side, at least 1.
        generator: Where the places come from; on the CPU or on the device of the images. The
            places are one draw of shape ``(2, n)``: rows, then columns.

    Returns:
        Shape, dtype and device of the images.

    Raises:
        ConfigError: The images have no four dimensions, or there is no padding.

    Source:
        Lee et al. 2015, Deeply-Supervised Nets, arXiv 1409.5185; He et al. 2016, arXiv 1512.03385,
        section 4.2: 4 pixels on each side, and a flip.
    """
    _check("pad_crop", images)
    if padding < 1:
        raise ConfigError(f"pad_crop: padding is {padding}; with less than 1 nothing would move.")
    n, channels, height, width = images.shape
    device = images.device
    places = torch.randint(
        2 * padding + 1, (2, n), generator=generator, device=generator.device
    ).to(device)
    rows = places[0, :, None] + torch.arange(height, device=device)
    columns = places[1, :, None] + torch.arange(width, device=device)
    return F.pad(images, (padding,) * 4)[
        torch.arange(n, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image, left to right, with probability one half.

    Args:
        images: Shape ``(n, c, h, w)``, any dtype.
        generator: Where the coins come from; on the CPU or on the device of the images. One draw
            of shape ``(n,)`` from {0, 1}; 1 mirrors.

    Returns:
        Shape, dtype and device of the images.

    Raises:
        ConfigError: The images have no four dimensions.
    """
    _check("flip", images)
    coins = torch.randint(2, (len(images),), generator=generator, device=generator.device)
    mirrored = coins.to(images.device, torch.bool)[:, None, None, None]
    return torch.where(mirrored, images.flip(3), images)


def _check(asked: str, images: Tensor) -> None:
    if images.ndim != 4:
        raise ConfigError(
            f"{asked}: the images have shape {tuple(images.shape)}, not (n, c, h, w)."
        )
