import pytest
import torch

from vibnet.errors import ConfigError
from vibnet.recipes.images import Images, Preparation
from vibnet.zoo import data as sets


def rows(x):
    """Images as tuples that can be counted."""
    return [tuple(row) for row in x.flatten(1).tolist()]


def joined(batches):
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


@pytest.fixture
def opened(monkeypatch):
    """How often the test images have been read."""
    names, real = [], sets.load_test

    def load_test(name, *args):
        names.append(name)
        return real(name, *args)

    monkeypatch.setattr(sets, "load_test", load_test)
    return names


def test_training_and_validation_images_are_the_training_set_in_two_parts(opened):
    images = Images("digits", 64, validation=300)
    whole = sets.as_float(sets.load("digits").images, 16)
    train, held = joined(images.train(0))[0], joined(images.validation())[0]
    assert (len(train), len(held)) == (1137, 300)
    assert images.sizes == {"train": 1137, "validation": 300}
    assert sorted(rows(train) + rows(held)) == sorted(rows(whole))
    assert opened == []


@pytest.mark.parametrize("seed", [0, 5])
def test_the_split_is_the_same_for_every_seed(seed):
    a, b = Images("digits", 64, validation=300, seed=seed), Images("digits", 10, validation=300)
    assert torch.equal(joined(a.validation())[0], joined(b.validation())[0])


def test_labels_stay_with_their_images():
    images, whole = Images("digits", 100, validation=300), sets.load("digits")
    known = dict(zip(rows(sets.as_float(whole.images, 16)), whole.labels.tolist(), strict=True))
    assert len(known) == 1437
    for batches in (images.train(3), images.validation()):
        x, y = joined(batches)
        assert [known[row] for row in rows(x)] == y.tolist()


def test_a_final_run_trains_on_all_and_shows_some_of_them():
    images = Images("digits", 100)
    train, held = joined(images.train(0))[0], joined(images.validation())[0]
    assert images.sizes == {"train": 1437, "validation": 0}
    assert len(train) == 1437
    assert len(held) == Images.SHOWN == 1000
    assert set(rows(held)) <= set(rows(train))


@pytest.mark.parametrize(("batch", "steps"), [(64, 18), (1137, 1), (1136, 2), (5000, 1)])
def test_batches_are_as_many_as_stated(batch, steps):
    images = Images("digits", batch, validation=300)
    sizes = [len(y) for _, y in images.train(0)]
    assert len(sizes) == images.steps == steps
    assert sum(sizes) == 1137
    assert set(sizes[:-1]) <= {batch}


PREPARATIONS = [Preparation(), Preparation(crop=1, flip=True), Preparation(flip=True)]


@pytest.mark.parametrize("preparation", PREPARATIONS)
@pytest.mark.parametrize("seed", [0, 12345678])
def test_an_epoch_is_a_function_of_seed_and_number(preparation, seed):
    def epoch(number, given=seed):
        torch.manual_seed(number)  # of which it is not a function
        return joined(Images("digits", 64, preparation, 300, given).train(number))

    (x, y), (again, y_again) = epoch(10), epoch(10)
    assert torch.equal(x, again)
    assert torch.equal(y, y_again)
    before = torch.get_rng_state()
    others = [epoch(11), epoch(10, seed + 1), epoch(10, 99945678)]
    assert all(not torch.equal(y, other) for _, other in others)
    torch.set_rng_state(before)
    list(Images("digits", 64, preparation, 300).train(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_differs_between_seeds_of_many_digits():
    """The same image at the same place of the order is changed in another way."""
    changes = []
    for seed in (12345678, 99945678):
        images = Images("digits", 2000, Preparation(flip=True), 300, seed)
        plain = Images("digits", 2000, Preparation(), 300, seed)
        flipped = (joined(images.train(10))[0] != joined(plain.train(10))[0]).flatten(1).any(1)
        assert 0.4 < flipped.double().mean() < 0.6
        changes.append(flipped)
    assert 0.4 < (changes[0] != changes[1]).double().mean() < 0.6


def test_only_training_images_are_augmented(opened):
    strong = Preparation(crop=2, flip=True)
    augmented, plain = (Images("digits", 64, p, 300) for p in (strong, Preparation()))
    for name in ("validation", "test"):
        a, b = (joined(getattr(i, name)()) for i in (augmented, plain))
        assert torch.equal(a[0], b[0])
    a, b = (joined(i.train(0)) for i in (augmented, plain))
    assert torch.equal(a[1], b[1])
    assert (a[0] != b[0]).flatten(1).any(1).double().mean() > 0.9
    assert opened == ["digits", "digits"]


def test_numbers_are_those_of_the_training_images_alone():
    images = Images("digits", 2000, Preparation(normalise=True), 300)
    x = joined(images.train(0))[0].double()
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-4)
    plain = Images("digits", 2000, Preparation(), 300)
    raw = joined(plain.train(0))[0].double()
    assert (float(raw.min()), float(raw.max())) == (0, 1)
    for name in ("validation", "test"):
        a, b = (joined(getattr(i, name)())[0].double() for i in (images, plain))
        expected = (b - raw.mean()) / raw.std(correction=0)
        torch.testing.assert_close(a, expected, rtol=0, atol=1e-4)


def test_the_test_set_is_opened_by_its_own_function_and_is_the_published_one(opened):
    images = Images("digits", 64, validation=300)
    list(images.train(0)), list(images.validation())
    assert opened == []
    x, y = joined(images.test())
    assert opened == ["digits"]
    expected = sets.load_test("digits")
    assert torch.equal(x, sets.as_float(expected.images, 16))
    assert torch.equal(y, expected.labels)
    train, held = joined(images.train(0))[0], joined(images.validation())[0]
    assert len(set(rows(x)) & set(rows(train) + rows(held))) == 0


def test_the_example_is_small_and_its_own():
    images = Images("digits", 64, validation=300)
    assert images.example.shape == (2, 1, 8, 8)
    before = joined(images.train(0))[0]
    images.example.zero_()
    assert torch.equal(joined(images.train(0))[0], before)


def test_an_unknown_set_is_refused():
    with pytest.raises(ConfigError, match=r"there is no such data set. There are: digits"):
        Images("digit", 64)
