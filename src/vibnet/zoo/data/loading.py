"""Find a data set, read it, and make sure that it is the published one."""

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from vibnet.errors import ConfigError, DataError
from vibnet.zoo.data.cifar import read_binary, read_python
from vibnet.zoo.data.dataset import DataSet
from vibnet.zoo.data.digits import read_digits
from vibnet.zoo.data.fetch import fetch
from vibnet.zoo.data.idx import read_idx
from vibnet.zoo.data.sets import SETS, Layout, Published, Split

VARIABLE = "VIBNET_DATA"


def load(name: str, folder: str | Path | None = None, download: bool = False) -> DataSet:
    """The training images of a data set, in the order of the published files.

    Args:
        name: ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10`` or ``cifar100`` (fine labels).
        folder: Holds the data sets; if not given, the environment variable ``VIBNET_DATA`` names
            it. The digits come with scikit-learn and need none.
        download: Fetch what is missing into the folder. Without it no network is used.

    Returns:
        Raw images and labels on the CPU. Use `DataSet.split` to make choices; the test images are
        `load_test`'s alone.

    Raises:
        ConfigError: There is no such set.
        DataError: No folder is named or it does not exist; files are missing, damaged, or not the
            published ones; or a download failed.

    >>> load("digits")
    DataSet('digits', 1437 images of 1 x 8 x 8, 10 classes)
    """
    return _read(name, "train", folder, download)


def load_test(name: str, folder: str | Path | None = None, download: bool = False) -> DataSet:
    """The test images: the one function that opens them, for once, after the last epoch.

    Args:
        name: As in `load`.
        folder: As in `load`.
        download: As in `load`.

    Returns:
        As `load`; its name ends in ``/test``.

    Raises:
        ConfigError: There is no such set.
        DataError: As in `load`.

    >>> load_test("digits")
    DataSet('digits/test', 360 images of 1 x 8 x 8, 10 classes)
    """
    return _read(name, "test", folder, download)


def checksum(images: Tensor, labels: Tensor) -> str:
    """SHA-256 of images and labels, whatever files they came from.

    Args:
        images: uint8, shape ``(n, c, h, w)``.
        labels: Integers below 256, shape ``(n,)``.

    Returns:
        Hexadecimal, of the bytes of the images followed by one byte for every label.
    """
    found = hashlib.sha256(images.contiguous().flatten().numpy().data)
    found.update(labels.to(torch.uint8).contiguous().numpy().data)
    return found.hexdigest()


def _read(name: str, split: Split, folder: str | Path | None, download: bool) -> DataSet:
    asked = f"{'load' if split == 'train' else 'load_test'}({name!r})"
    if name not in SETS:
        raise ConfigError(f"{asked}: there is no such data set. There are: {', '.join(SETS)}.")
    published = SETS[name]
    if not published.layouts:
        where = "scikit-learn"
        images, labels = read_digits(split)
    else:
        layout, paths = _find(asked, published, split, _folder(asked, folder, download), download)
        where = str(paths[0].parent)
        images, labels = _decode(published, split, layout, paths)
    _verify(asked, published, split, where, checksum(images, labels))
    return DataSet(
        name=name if split == "train" else f"{name}/test",
        images=images,
        labels=labels.long(),
        classes=published.classes,
        peak=published.peak,
    )


def _folder(asked: str, folder: str | Path | None, download: bool) -> Path:
    named = folder or os.environ.get(VARIABLE)
    if not named:
        raise DataError(
            f"{asked}: no folder was given, and {VARIABLE} is not set. Pass folder=..., or set "
            f"{VARIABLE} to the folder that holds the data sets. With download=True what is "
            f"missing there is fetched."
        )
    root = Path(named).expanduser()
    if not root.is_dir() and not (download and not root.exists()):
        raise DataError(
            f"{asked}: {root} is {'no folder' if root.exists() else 'not there'}. Name the folder "
            f"that holds the data sets, by folder=... or by {VARIABLE}."
        )
    return root


def _find(
    asked: str, published: Published, split: Split, root: Path, download: bool
) -> tuple[Layout, list[Path]]:
    """The first layout of which every file of the split is there."""
    found = _present(published, split, root)
    if found is None and download:
        for item in published.downloads[split]:
            fetch(item, root)
        found = _present(published, split, root)
    if found is not None:
        return found
    places = []
    for layout in published.layouts:
        for sub in layout.folders:
            lacking = [f for f in layout.files[split] if not _variants(layout, root / sub / f)]
            more = ", of which some are there" if len(lacking) < len(layout.files[split]) else ""
            where = "that folder itself" if sub == "." else sub
            places.append(f"{where} lacks {', '.join(lacking)}{more}")
    raise DataError(
        f"{asked}: there is no complete {published.name} in {root}: {'; '.join(places)}. Put the "
        f"published files there (idx files may end in .gz), or fetch them with download=True."
    )


def _present(published: Published, split: Split, root: Path) -> tuple[Layout, list[Path]] | None:
    for layout in published.layouts:
        for sub in layout.folders:
            paths = [_variants(layout, root / sub / name) for name in layout.files[split]]
            if all(paths):
                return layout, [path[0] for path in paths]
    return None


def _variants(layout: Layout, path: Path) -> list[Path]:
    """The file, plain before compressed, as far as it exists."""
    names = [path.name, f"{path.name}.gz"] if layout.format == "idx" else [path.name]
    return [p for p in map(path.with_name, names) if p.is_file()]


def _decode(
    published: Published, split: Split, layout: Layout, paths: list[Path]
) -> tuple[Tensor, Tensor]:
    count = published.counts[split]
    fine = published.classes > 10
    if layout.format == "binary":
        return read_binary(paths, count, label_bytes=2 if fine else 1)
    if layout.format == "python":
        return read_python(paths, count, key="fine_labels" if fine else "labels")
    images = read_idx(paths[0], (count, *published.shape[1:]))
    return images[:, None], read_idx(paths[1], (count,))


def _verify(asked: str, published: Published, split: Split, where: str, found: str) -> None:
    expected = published.sums[split]
    if found == expected:
        return
    others = [
        f"{s.name} ({part})" for s in SETS.values() for part in s.sums if s.sums[part] == found
    ]
    raise DataError(
        f"{asked}: what {where} holds is not the published {published.name} ({split}): the "
        f"SHA-256 of its images and labels is {found}, not {expected}."
        + (f" It is {others[0]}." if others else "")
        + " Delete the files and get them again: download=True fetches what is missing."
    )
