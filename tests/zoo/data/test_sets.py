"""The table of the published sets fits together."""

import re
from urllib.parse import urlsplit

import pytest

from vibnet.zoo.data.sets import SETS

HOSTS = {
    "ossci-datasets.s3.amazonaws.com",
    "fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "www.cs.toronto.edu",
}
SHA256 = re.compile("[0-9a-f]{64}")
each_set = pytest.mark.parametrize("published", SETS.values(), ids=SETS)


@each_set
def test_a_set_states_counts_sums_and_source(published):
    assert SETS[published.name] is published
    assert set(published.counts) == set(published.sums) == {"train", "test"}
    assert all(SHA256.fullmatch(s) for s in published.sums.values())
    assert published.source


def test_no_two_parts_have_the_same_sum():
    sums = [s for published in SETS.values() for s in published.sums.values()]
    assert len(set(sums)) == len(sums)


@each_set
def test_what_is_downloaded_is_a_layout_that_is_looked_for(published):
    for split, items in published.downloads.items():
        written = {
            f"{item.folder}/{name}"
            for item in items
            for name in item.members or [item.url.rsplit("/", 1)[-1].removesuffix(".gz")]
        }
        layout = published.layouts[0]
        assert {f"{layout.folders[0]}/{name}" for name in layout.files[split]} <= written


@each_set
def test_a_download_comes_from_a_known_host_and_has_size_and_sum(published):
    for items in published.downloads.values():
        for item in items:
            assert urlsplit(item.url).hostname in HOSTS
            assert SHA256.fullmatch(item.sha256)
            assert item.size > 0


@each_set
def test_training_and_test_share_no_file(published):
    for layout in published.layouts:
        assert not set(layout.files["train"]) & set(layout.files["test"])
