"""An epoch is every example once, in an order that can be repeated and resumed."""

from itertools import chain

import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.zoo.data.batches import batches
from vibnet.zoo.data.shuffle import order

N = 23
LABELS = torch.arange(N)
IMAGES = LABELS.reshape(N, 1, 1, 1).expand(N, 1, 2, 2).to(torch.uint8)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def visited(*arguments, **more):
    """The labels batch by batch, after a look at the images."""
    found = []
    for images, labels in batches(IMAGES, LABELS, *arguments, **more):
        assert images.dtype == torch.uint8
        assert images[:, 0, 1, 1].tolist() == labels.tolist()
        found.append(labels.tolist())
    return found


@pytest.mark.parametrize("size", [1, 5, 22, 23, 24])
@pytest.mark.parametrize("shuffled", [False, True])
def test_an_epoch_is_every_example_once(size, shuffled):
    found = visited(size, seeded() if shuffled else None)
    assert [len(batch) for batch in found[:-1]] == [size] * ((N - 1) // size)
    assert 1 <= len(found[-1]) <= size
    flat = list(chain(*found))
    assert sorted(flat) == list(range(N))
    assert (flat == list(range(N))) is not shuffled


@pytest.mark.parametrize(("size", "number"), [(5, 4), (23, 1), (1, 23)])
def test_drop_last_leaves_out_only_a_short_batch(size, number):
    found = visited(size, seeded(), drop_last=True)
    assert found == [b for b in visited(size, seeded()) if len(b) == size]
    assert len(found) == number


def test_the_state_of_the_generator_decides_and_is_used_by_the_call_itself():
    generator = seeded(7)
    state = generator.get_state()
    first = visited(4, generator)
    assert first[0] == torch.randperm(N, generator=seeded(7))[:4].tolist()
    assert visited(4, generator) != first
    generator.set_state(state)
    iterator = batches(IMAGES, LABELS, 4, generator)
    assert not torch.equal(generator.get_state(), state)
    assert [labels.tolist() for _, labels in iterator] == first


def test_a_run_resumes_in_the_middle_of_an_epoch():
    whole = visited(4, indices=order(N, seed=1, epoch=5))
    assert whole[2:] == visited(4, indices=order(N, seed=1, epoch=5)[8:])
    assert list(chain(*whole)) == order(N, 1, 5).tolist()


def test_the_batches_are_copies():
    (images, labels), *_ = batches(IMAGES, LABELS, N)
    images += 1
    labels += 1
    assert LABELS.tolist() == list(range(N))
    assert IMAGES[:, 0, 0, 0].tolist() == list(range(N))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"labels": LABELS[1:]}, "23 images but 22 labels"),
        ({"size": 0}, "size is 0; a batch holds at least 1"),
        ({"size": 24, "drop_last": True}, "23 examples make no batch of 24 with drop_last=True"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "0 examples make no batch of 4"),
        ({"indices": LABELS[:0]}, "0 examples make no batch of 4"),
        ({"indices": LABELS, "generator": seeded()}, "both a generator and indices are given"),
        ({"indices": LABELS > 3}, r"indices are torch\.bool of shape \(23,\); they must be int64"),
        ({"indices": LABELS[None]}, r"indices are torch\.int64 of shape \(1, 23\)"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused_at_once(more, message):
    with pytest.raises(ConfigError, match=message):
        batches(**{"images": IMAGES, "labels": LABELS, "size": 4} | more)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: BATCHES ON ONE UNTESTED")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_cut_on_the_device_of_the_images(device):
    generator = torch.Generator(device).manual_seed(0)
    found = list(batches(IMAGES.cuda(), LABELS.cuda(), 5, generator))
    assert {x.device.type for pair in found for x in pair} == {"cuda"}
    assert sorted(torch.cat([labels for _, labels in found]).tolist()) == list(range(N))
