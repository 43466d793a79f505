"""Downloads: only when asked for, checked, and whole or not at all."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from vibnet.errors import DataError
from vibnet.zoo.data.sets import Download

SECONDS = 60  # without an answer
CHUNK = 1 << 20  # bytes


def fetch(item: Download, root: Path) -> None:
    """Fetch one file, check it, and put it, or the members of the archive, in their folder.

    Everything is written beside the target first and moved when it is complete and its SHA-256 is
    right. Of an archive only the named regular files are taken out.

    Args:
        item: What.
        root: The data folder; made if missing.

    Raises:
        DataError: The address does not answer, what comes is not the published file, the archive
            lacks a member, or the folder cannot be written.
    """
    target = root / item.folder
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".download-") as scratch:
            received = Path(scratch) / item.url.rsplit("/", 1)[-1]
            _receive(item, received, target)
            files = _unpack(item, received) if item.members else [received]
            for file in files:
                file.replace(target / file.name)
    except OSError as error:
        raise DataError(
            f"{item.url} could not be stored in {target}: {error}. Name a folder that can be "
            f"written and has room."
        ) from error


def _receive(item: Download, path: Path, target: Path) -> None:
    sha256, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in _chunks(item.url, target):
            size += len(chunk)
            if size > item.size:
                break
            sha256.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if size != item.size or sha256.hexdigest() != item.sha256:
        found = f"more than {item.size}" if size > item.size else f"{size}"
        raise DataError(
            f"{item.url} sent {found} bytes that are not the published file ({item.size} bytes, "
            f"SHA-256 {item.sha256}). Nothing was kept. Try again, or put the published files into "
            f"{target} by hand."
        )


def _chunks(url: str, target: Path) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            while chunk := response.read(CHUNK):
                yield chunk
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{url} could not be fetched: {error}. Nothing was kept. Without a network, put the "
            f"published files into {target} by hand."
        ) from error


def _unpack(item: Download, archive: Path) -> list[Path]:
    files = []
    with tarfile.open(archive, "r:gz") as tar:
        members = {member.name: member for member in tar if member.isfile()}
        for name in item.members:
            member = members.get(f"{item.folder}/{name}")
            content = tar.extractfile(member) if member else None
            if content is None:
                raise DataError(f"the archive of {item.url} has no file {item.folder}/{name}.")
            files.append(archive.parent / name)
            with content, files[-1].open("xb") as file:
                shutil.copyfileobj(content, file, CHUNK)
                file.flush()
                os.fsync(file.fileno())
    return files
