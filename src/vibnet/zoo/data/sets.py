"""What was published: counts, files, checksums and addresses of every data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Files of a set as people keep them."""

    format: Literal["idx", "binary", "python"]
    folders: tuple[str, ...]  # below the data folder; "." is the data folder itself
    files: Mapping[Split, tuple[str, ...]]  # idx files may also end in .gz


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file to fetch, its size in bytes and its SHA-256."""

    url: str
    size: int
    sha256: str
    folder: str  # where it goes, below the data folder
    members: tuple[str, ...] = ()  # of an archive: the files to take out of its `folder`


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set as its authors published it.

    Args:
        name: What `load` calls it.
        classes: Number of classes.
        shape: Channels, height and width of an image.
        counts: Images of either split.
        sums: SHA-256 of the raw images, as bytes in the order ``(n, c, h, w)``, followed by one
            byte for every label: the same whatever files they were read from.
        peak: Largest raw value an image can hold.
        layouts: What is looked for, first to last.
        downloads: What `download=True` fetches for either split.
        source: Who made it.
    """

    name: str
    classes: int
    shape: tuple[int, int, int]
    counts: Mapping[Split, int]
    sums: Mapping[Split, str]
    peak: int = 255
    layouts: tuple[Layout, ...] = ()
    downloads: Mapping[Split, tuple[Download, ...]] = field(default_factory=dict)
    source: str


_IDX: Mapping[Split, tuple[str, ...]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz"


def _idx_downloads(
    base: str, folder: str, files: list[tuple[int, str]]
) -> Mapping[Split, tuple[Download, ...]]:
    names = [*_IDX["train"], *_IDX["test"]]
    train_images, train_labels, test_images, test_labels = (
        Download(url=f"{base}/{name}.gz", size=size, sha256=sha256, folder=folder)
        for name, (size, sha256) in zip(names, files, strict=True)
    )
    return {"train": (train_images, train_labels), "test": (test_images, test_labels)}


_CIFAR10_ARCHIVE = Download(
    url=f"{_CIFAR_URL}/cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    members=(*(f"{name}.bin" for name in _BATCHES), "test_batch.bin"),
)
_CIFAR100_ARCHIVE = Download(
    url=f"{_CIFAR_URL}/cifar-100-binary.tar.gz",
    size=168_513_733,
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder="cifar-100-binary",
    members=("train.bin", "test.bin"),
)

SETS: dict[str, Published] = {
    "digits": Published(
        name="digits",
        classes=10,
        shape=(1, 8, 8),
        counts={"train": 1437, "test": 360},
        sums={
            "train": "630427cf5ae06337f847dc9c57e71411ca70e35c5868e8cfdf1be5195a99b51f",
            "test": "54ae8539172ca8fed2d1459f41729770c82f511bbf1f1dd3c220b6719ce0aca2",
        },
        peak=16,
        source="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, 1998: its test "
        "part, as scikit-learn ships it",
    ),
    "mnist": Published(
        name="mnist",
        classes=10,
        shape=(1, 28, 28),
        counts={"train": 60_000, "test": 10_000},
        sums={
            "train": "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b",
            "test": "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b",
        },
        layouts=(Layout(format="idx", folders=("MNIST/raw", "mnist", "."), files=_IDX),),
        downloads=_idx_downloads(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "MNIST/raw",
            [
                (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
            ],
        ),
        source="Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits",
    ),
    "fashion-mnist": Published(
        name="fashion-mnist",
        classes=10,
        shape=(1, 28, 28),
        counts={"train": 60_000, "test": 10_000},
        sums={
            "train": "16d82e2b505296aa2b78bd5ea0992634f30419a4c97def7c907d154a35ac6157",
            "test": "9f1ec356a747bfe4ebab3cfb722d3694c9ca737e2570f6f90cf31d7b6fd689d4",
        },
        layouts=(
            Layout(format="idx", folders=("FashionMNIST/raw", "fashion-mnist", "."), files=_IDX),
        ),
        downloads=_idx_downloads(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "FashionMNIST/raw",
            [
                (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
                (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
                (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
            ],
        ),
        source="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, 2017, arXiv 1708.07747",
    ),
    "cifar10": Published(
        name="cifar10",
        classes=10,
        shape=(3, 32, 32),
        counts={"train": 50_000, "test": 10_000},
        sums={
            "train": "1e91790dbaf241617ca1f29a9aba08eb9a62df84cc90676b47edd05ad2ab3c94",
            "test": "9a4c74f5c8b6f2c4e13d3a1dfb43a5a8cda8a9da515e99fd620d2013a1a6287a",
        },
        layouts=(
            Layout(
                format="binary",
                folders=("cifar-10-batches-bin", "."),
                files={
                    "train": tuple(f"{name}.bin" for name in _BATCHES),
                    "test": ("test_batch.bin",),
                },
            ),
            Layout(
                format="python",
                folders=("cifar-10-batches-py", "."),
                files={"train": _BATCHES, "test": ("test_batch",)},
            ),
        ),
        downloads={"train": (_CIFAR10_ARCHIVE,), "test": (_CIFAR10_ARCHIVE,)},
        source="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    ),
    "cifar100": Published(
        name="cifar100",
        classes=100,
        shape=(3, 32, 32),
        counts={"train": 50_000, "test": 10_000},
        sums={
            "train": "4e50520a1125d045fade68001374cf6c74e360819dc08b7ecffe4e6c79e9b419",
            "test": "dc66669533e5da36cbeb472b8e2af54edcb17f1d9736fdbd5fede79d08f46b2f",
        },
        layouts=(
            Layout(
                format="binary",
                folders=("cifar-100-binary", "."),
                files={"train": ("train.bin",), "test": ("test.bin",)},
            ),
            Layout(
                format="python",
                folders=("cifar-100-python", "."),
                files={"train": ("train",), "test": ("test",)},
            ),
        ),
        downloads={"train": (_CIFAR100_ARCHIVE,), "test": (_CIFAR100_ARCHIVE,)},
        source="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; fine "
        "labels",
    ),
}
