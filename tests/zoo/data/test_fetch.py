"""Downloads are complete and right, or leave nothing behind."""

import gzip
import hashlib
import io
import socket
import tarfile
import urllib.request
from dataclasses import replace
from http.client import IncompleteRead

import pytest
import torch
from tiny_sets import content, publish, write_binary, write_idx

from vibnet.errors import DataError
from vibnet.zoo.data import load, load_test, sets
from vibnet.zoo.data.fetch import fetch
from vibnet.zoo.data.sets import Download


def served(path, **more):
    """The download of a local file."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    given = {"url": path.as_uri(), "size": path.stat().st_size, "sha256": sha256, "folder": "to"}
    return Download(**given | more)


def archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for name, body in members:
            info = tarfile.TarInfo(name)
            if body is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                info.size = len(body)
            tar.addfile(info, None if body is None else io.BytesIO(body))
    return path


def files(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "server" / "thing.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b"content"))
    return path


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def test_a_file_arrives_as_it_was_sent_and_replaces_an_old_one(source, root):
    for _ in range(2):
        fetch(served(source), root)
        assert files(root) == ["to/thing.gz"]
        assert (root / "to/thing.gz").read_bytes() == source.read_bytes()
        (root / "to/thing.gz").write_bytes(b"old")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"sha256": "0" * 64},
            r"thing\.gz sent 27 bytes that are not the published .*SHA-256 0000",
        ),
        ({"size": 26}, "sent more than 26 bytes"),
        ({"size": 28}, r"sent 27 bytes that are not the published file \(28 bytes"),
        ({"url": "file:///nowhere/thing.gz"}, r"nowhere/thing\.gz could not be fetched: .*Without"),
    ],
)
def test_what_is_not_the_published_file_is_not_kept(more, message, source, root):
    with pytest.raises(DataError, match=message):
        fetch(replace(served(source), **more), root)
    assert files(root) == []
    assert list((root / "to").iterdir()) == []


class Broken(io.BytesIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def read(self, size=-1):
        raise self.error


@pytest.mark.parametrize(
    "error", [TimeoutError("timed out"), IncompleteRead(b"", 9), socket.gaierror("no such host")]
)
@pytest.mark.parametrize("late", [False, True])
def test_a_network_that_fails_at_once_or_later_is_one_clear_error(
    error, late, source, root, monkeypatch
):
    def opened(url, timeout):
        assert timeout == 60
        if late:
            return Broken(error)
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", opened)
    with pytest.raises(DataError, match=r"could not be fetched: .*Without a network, put the publ"):
        fetch(served(source), root)
    assert files(root) == []


class Endless(io.BytesIO):
    """Sends and sends; what is on the disk meanwhile is looked at."""

    def __init__(self, root):
        super().__init__()
        self.root, self.seen, self.sent = root, [], 0

    def read(self, size=-1):
        self.sent += 1
        assert self.sent < 5
        self.seen = files(self.root)
        return bytes(size)


def test_an_endless_download_is_stopped_and_lay_beside_its_target(source, root, monkeypatch):
    endless = Endless(root)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: endless)
    with pytest.raises(DataError, match="sent more than 2000000 bytes"):
        fetch(replace(served(source), size=2_000_000), root)
    assert endless.sent == 2
    assert [name.split("-")[0] for name in endless.seen] == ["to/.download"]
    assert files(root) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(source):
    with pytest.raises(
        DataError, match=r"could not be stored in .*to: .*Name a folder that can be"
    ):
        fetch(served(source), source / "below-a-file")


def test_of_an_archive_only_the_named_files_are_taken(tmp_path, root):
    path = archive(
        tmp_path / "set.tar.gz",
        ("to/one", b"1"),
        ("to/readme", b"no"),
        ("../outside", b"no"),
        ("/tmp/absolute", b"no"),
        ("to/two", b"2"),
    )
    fetch(served(path, members=("one", "two")), root)
    assert files(root) == ["to/one", "to/two"]
    assert (root / "to/two").read_bytes() == b"2"


@pytest.mark.parametrize("members", [[("to/one", b"1")], [("to/one", b"1"), ("to/two", None)]])
def test_an_archive_without_a_file_is_refused_and_nothing_kept(members, tmp_path, root):
    path = archive(tmp_path / "set.tar.gz", *members)
    with pytest.raises(DataError, match=r"set\.tar\.gz has no file to/two"):
        fetch(served(path, members=("one", "two")), root)
    assert files(root) == []


def served_set(name, tmp_path, monkeypatch):
    """The tiny set, published and downloadable."""
    publish(name, monkeypatch)
    server = tmp_path / "server"
    downloads = {}
    for split in ("train", "test"):
        if name == "mnist":
            write_idx(server, name, split, True)
        else:
            write_binary(server / "cifar-10-batches-bin", name, split)
    for split, items in sets.SETS[name].downloads.items():
        if name == "cifar10":
            folder = server / "cifar-10-batches-bin"
            members = [(f"{folder.name}/{p.name}", p.read_bytes()) for p in folder.iterdir()]
            archive(server / "cifar-10-binary.tar.gz", *members)
        downloads[split] = tuple(
            served(server / i.url.rsplit("/", 1)[-1], folder=i.folder, members=i.members)
            for i in items
        )
    monkeypatch.setitem(sets.SETS, name, replace(sets.SETS[name], downloads=downloads))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_set_is_fetched_only_when_asked_for_and_only_once(name, tmp_path, root, monkeypatch):
    served_set(name, tmp_path, monkeypatch)
    with pytest.raises(DataError, match="data is not there"):
        load(name, root)
    found = load(name, root, download=True)
    assert torch.equal(found.images, torch.from_numpy(content(name, "train")[0]))
    if name == "mnist":
        assert all("/t10k" not in file for file in files(root))
    test = load_test(name, root, download=True)
    assert torch.equal(test.images, torch.from_numpy(content(name, "test")[0]))

    def refuse(url, timeout):
        raise AssertionError

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert len(load(name, root, download=True)) == len(load(name, root)) == 10
    assert len(load_test(name, root, download=True)) == 5


def test_without_being_asked_nothing_is_opened(root, monkeypatch):
    root.mkdir()
    monkeypatch.setattr(urllib.request, "urlopen", None)
    with pytest.raises(DataError, match="or fetch them with download=True"):
        load("cifar100", root)
