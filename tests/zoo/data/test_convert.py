"""Raw bytes become the numbers that a slow computation gives."""

import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.zoo.data.convert import as_float, moments, normalise


def images(shape=(5, 3, 4, 6), top=256):
    return torch.randint(top, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("peak", [255, 16])
def test_as_float_divides_by_the_peak(peak):
    raw = images(top=peak + 1)
    found = as_float(raw, peak)
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1
    torch.testing.assert_close(found.double(), raw.double() / peak, rtol=1e-7, atol=0)


@pytest.mark.parametrize("peak", [255, 16])
def test_moments_are_the_mean_and_the_root_mean_square_deviation(peak):
    raw = images(top=peak + 1)
    mean, std = moments(raw, peak)
    for channel in range(3):
        values = raw[:, channel].double().flatten() / peak
        assert mean[channel].item() == pytest.approx(values.mean().item(), rel=1e-12)
        assert std[channel].item() == pytest.approx(values.std(correction=0).item(), rel=1e-12)


def test_normalised_images_have_mean_0_and_deviation_1_in_every_channel():
    raw = images()
    raw[:, 1] //= 7
    mean, std = moments(raw)
    found = normalise(as_float(raw).double(), mean, std)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    ones = torch.ones(3).double()
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), ones, rtol=1e-6, atol=0)
    assert normalise(as_float(raw), mean, std).dtype == torch.float32


def test_wrong_arguments_are_refused():
    raw = images()
    one, zero = torch.ones(3), torch.tensor([1.0, 0.0, 1.0])
    with pytest.raises(ConfigError, match=r"as_float: the images are torch\.float32, not raw"):
        as_float(as_float(raw))
    with pytest.raises(ConfigError, match=r"moments: the images are torch\.float32"):
        moments(as_float(raw))
    with pytest.raises(ConfigError, match=r"moments: the images have shape \(3, 4, 6\)"):
        moments(raw[0])
    with pytest.raises(ConfigError, match=r"normalise: the images are torch\.uint8.*as_float"):
        normalise(raw, one, one)
    for shape in (one[:2], one[0], one[None]):
        with pytest.raises(ConfigError, match="need a mean and a std per channel"):
            normalise(as_float(raw), shape, one)
        with pytest.raises(ConfigError, match="need a mean and a std per channel"):
            normalise(as_float(raw), one, shape)
    for bad in (zero, -one, one * float("nan"), one * float("inf")):
        with pytest.raises(ConfigError, match=r"std is .*must be positive and finite"):
            normalise(as_float(raw), one, bad)
