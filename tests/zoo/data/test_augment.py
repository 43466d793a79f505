"""Whole batches are cropped and flipped as a loop over images and pixels does it."""

import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.zoo.data.augment import flip, pad_crop

DTYPES = [torch.uint8, torch.float32, torch.float64, torch.int64]
SHAPES = [(7, 3, 5, 4), (1, 1, 1, 1), (0, 2, 3, 3), (4, 1, 2, 6)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(shape, dtype):
    return torch.randint(1, 256, shape, generator=seeded(9)).to(dtype)


@pytest.mark.parametrize("padding", [1, 2, 9])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pad_crop_moves_every_image_by_its_own_place(dtype, shape, padding):
    images = numbers(shape, dtype)
    found = pad_crop(images, padding, seeded())
    n, channels, height, width = shape
    places = torch.randint(2 * padding + 1, (2, n), generator=seeded())
    expected = torch.zeros(shape, dtype=dtype)
    for i in range(n):
        down, right = (places[:, i] - padding).tolist()
        for y in range(height):
            for x in range(width):
                if 0 <= y + down < height and 0 <= x + right < width:
                    expected[i, :, y, x] = images[i, :, y + down, x + right]
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    assert channels == found.shape[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_flip_mirrors_the_images_whose_coin_is_one(dtype, shape):
    images = numbers(shape, dtype)
    found = flip(images, seeded(3))
    coins = torch.randint(2, shape[:1], generator=seeded(3))
    rows = [
        [[row[::-1] if coin else row for row in plane] for plane in image]
        for image, coin in zip(images.tolist(), coins.tolist(), strict=True)
    ]
    assert found.dtype == dtype
    assert torch.equal(found, torch.tensor(rows, dtype=dtype).reshape(shape))


def test_every_place_and_both_sides_are_equally_likely():
    images = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3).expand(18_000, 1, 3, 3)
    centres = pad_crop(images, 1, seeded())[:, 0, 1, 1].long().bincount(minlength=10)[1:]
    assert centres.sum() == 18_000
    assert ((centres - 2000).square() / 2000).sum() < 26.1  # 0.999 quantile, 8 degrees of freedom
    mirrored = (flip(images, seeded())[:, 0, 0, 0] == 3).sum().item()
    assert abs(mirrored - 9000) < 3.3 * 18_000**0.5 / 2


def test_the_generator_decides_and_the_input_stays_as_it_was():
    images = numbers((16, 3, 8, 8), torch.uint8)
    kept = images.clone()
    for augment in (flip, lambda x, g: pad_crop(x, 2, g)):
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first = augment(images, seeded(1))
        assert torch.equal(first, augment(images, seeded(1)))
        assert not torch.equal(first, augment(images, seeded(2)))
        assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(images, kept)


def test_images_of_any_strides_are_taken():
    images = numbers((6, 3, 8, 8), torch.float32)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(pad_crop(images, 2, seeded()), pad_crop(last, 2, seeded()))
    assert torch.equal(flip(images, seeded()), flip(last, seeded()))


def test_calls_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="padding is 0; with less than 1 nothing would move"):
        pad_crop(numbers((1, 1, 2, 2), torch.uint8), 0, seeded())
    with pytest.raises(ConfigError, match=r"pad_crop: the images have shape \(3, 8, 8\)"):
        pad_crop(numbers((3, 8, 8), torch.uint8), 2, seeded())
    with pytest.raises(ConfigError, match=r"flip: the images have shape \(8, 8\)"):
        flip(numbers((8, 8), torch.uint8), seeded())


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NO CUDA DEVICE: AUGMENTING ON ONE UNTESTED"
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_images_on_a_device_stay_there_wherever_the_generator_is(device):
    images = numbers((16, 3, 8, 8), torch.uint8)
    for augment in (flip, lambda x, g: pad_crop(x, 2, g)):
        found = augment(images.cuda(), torch.Generator(device).manual_seed(0))
        assert (found.device.type, found.dtype) == ("cuda", torch.uint8)
        if device == "cpu":
            assert torch.equal(found.cpu(), augment(images, seeded()))
