"""From raw bytes to the numbers a network reads."""

import torch
from torch import Tensor

from vibnet.errors import ConfigError


def as_float(images: Tensor, peak: int = 255) -> Tensor:
    """Raw images as numbers in [0, 1]: ``images / peak``.

    Args:
        images: uint8, any shape.
        peak: The largest raw value: 255, and 16 for the digits (`DataSet.peak`).

    Returns:
        float32, the same shape and device.

    Raises:
        ConfigError: The images are not uint8, so they have been converted already.

    >>> as_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    _check_raw("as_float", images)
    return images.to(torch.float32) / peak


def moments(images: Tensor, peak: int = 255) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel of `as_float(images, peak)`.

    Computed from the counts of the raw values, so nothing is lost to rounding. Take them of the
    images that are trained on, never of validation or test images.

    Args:
        images: uint8, shape ``(n, c, h, w)``.
        peak: The largest raw value.

    Returns:
        Mean and standard deviation (divisor: the number of pixels), float64, shape ``(c,)``.

    Raises:
        ConfigError: The images are not uint8, or have no four dimensions.

    >>> moments(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2))
    (tensor([0.5000], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    _check_raw("moments", images)
    if images.ndim != 4:
        raise ConfigError(
            f"moments: the images have shape {tuple(images.shape)}, not (n, c, h, w)."
        )
    counts = torch.stack(
        [torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]
    ).double()
    share = counts / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64, device=images.device) / peak
    mean = share @ values
    variance = (share * (values - mean[:, None]).square()).sum(1)
    return mean, variance.sqrt()


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract a mean and divide by a standard deviation, channel by channel.

    Args:
        images: Floats, shape ``(n, c, h, w)``, in the unit of `mean` and `std`.
        mean: Shape ``(c,)``.
        std: Shape ``(c,)``, greater than 0.

    Returns:
        ``(images - mean) / std``, dtype and device of the images.

    Raises:
        ConfigError: The images are raw bytes; mean or std has another length than there are
            channels; or a standard deviation is not positive and finite.

    >>> normalise(torch.ones(1, 1, 1, 2), torch.tensor([0.5]), torch.tensor([0.25])).flatten()
    tensor([2., 2.])
    """
    if not images.is_floating_point():
        raise ConfigError(f"normalise: the images are {images.dtype}. Call as_float first.")
    if images.ndim != 4 or mean.shape != images.shape[1:2] or std.shape != images.shape[1:2]:
        raise ConfigError(
            f"normalise: images of shape {tuple(images.shape)} need a mean and a std per channel, "
            f"but those have shapes {tuple(mean.shape)} and {tuple(std.shape)}."
        )
    if not ((std > 0) & std.isfinite()).all():
        raise ConfigError(
            f"normalise: std is {std.tolist()}; each must be positive and finite. A channel that "
            f"never varies cannot be normalised: leave it as it is."
        )
    mean, std = (v.to(images)[:, None, None] for v in (mean, std))
    return (images - mean) / std


def _check_raw(asked: str, images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise ConfigError(f"{asked}: the images are {images.dtype}, not raw uint8.")
