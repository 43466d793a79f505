"""The published sets themselves, in the folder that VIBNET_DATA names."""

import os
from pathlib import Path

import pytest

from vibnet.zoo.data import load, load_test, moments

FOLDER = os.environ.get("VIBNET_DATA")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not FOLDER, reason="VIBNET_DATA IS NOT SET: THE PUBLISHED DATA SETS ARE NOT TESTED"
    ),
]

# Images, those of the rarest class, those of the commonest; training and test.
COUNTS = {
    "mnist": ((60_000, 5421, 6742), (10_000, 892, 1135)),
    "fashion-mnist": ((60_000, 6000, 6000), (10_000, 1000, 1000)),
    "cifar10": ((50_000, 5000, 5000), (10_000, 1000, 1000)),
    "cifar100": ((50_000, 500, 500), (10_000, 100, 100)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_set_has_its_published_counts_of_every_class(name):
    for part, expected in zip((load(name), load_test(name)), COUNTS[name], strict=True):
        counts = part.labels.bincount(minlength=part.classes)
        assert (len(part), counts.min().item(), counts.max().item()) == expected


@pytest.mark.parametrize(
    ("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")]
)
def test_the_python_version_passes_the_checksums_too(name, folder, tmp_path):
    if not (Path(FOLDER) / folder).is_dir():
        pytest.skip(f"{folder.upper()} IS NOT IN VIBNET_DATA: THE PYTHON VERSION IS NOT TESTED")
    (tmp_path / folder).symlink_to(Path(FOLDER) / folder)
    assert len(load(name, tmp_path)) == 50_000
    assert len(load_test(name, tmp_path)) == 10_000


def test_the_first_labels_are_those_everyone_sees():
    assert load("mnist").labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert load_test("mnist").labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert load("fashion-mnist").labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert load("cifar10").labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert load("cifar100").labels[:5].tolist() == [19, 29, 0, 11, 1]


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [  # the constants in common use, to four digits
        ("mnist", [0.1307], [0.3081]),
        ("fashion-mnist", [0.2860], [0.3530]),
        ("cifar10", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        ("cifar100", [0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    ],
)
def test_the_moments_are_the_constants_in_common_use(name, mean, std):
    found = moments(load(name).images)
    assert found[0].tolist() == pytest.approx(mean, abs=5.1e-5)
    assert found[1].tolist() == pytest.approx(std, abs=5.1e-5)


def test_a_split_of_mnist_leaves_fifty_thousand():
    train, validation = load("mnist").split()
    assert (len(train), len(validation)) == (50_000, 10_000)
    assert validation.labels.bincount().min() > 800
