"""Idx files that are damaged or hold something else are refused by name."""

import gzip

import numpy as np
import pytest
from tiny_sets import idx

from vibnet.errors import DataError
from vibnet.zoo.data.idx import read_idx

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
GOOD = idx(ARRAY)


def test_an_idx_file_gives_its_array_plain_and_compressed(tmp_path):
    (tmp_path / "plain").write_bytes(GOOD)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(GOOD, mtime=0))
    for name in ("plain", "packed.gz"):
        assert read_idx(tmp_path / name, ARRAY.shape).tolist() == ARRAY.tolist()


def test_the_bytes_are_those_of_the_format(tmp_path):
    (tmp_path / "file").write_bytes(bytes.fromhex("00000801 00000003 050004"))
    assert read_idx(tmp_path / "file", (3,)).tolist() == [5, 0, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[:-1], r"file is truncated: it ends after 23 of 24 bytes.*Delete the file"),
        (GOOD + b"\0", "file is too long: it has more than 24 of 24 bytes"),
        (GOOD[:9], "file is truncated: it ends within its header"),
        (b"", "begins with nothing; the magic number"),
        (b"\0\0\x08\x01" + GOOD[4:], "begins with 00 00 08 01; the magic number.* 00 00 08 03"),
        (b"\0\0\x0d\x03" + GOOD[4:], "begins with 00 00 0d 03"),
        (gzip.compress(GOOD, mtime=0), "begins with 1f 8b"),
        (idx(ARRAY[:1]), r"says that it holds \(1, 3, 4\), published is \(2, 3, 4\)"),
        (idx(ARRAY.reshape(2, 4, 3)), r"says that it holds \(2, 4, 3\)"),
    ],
)
def test_a_wrong_file_is_refused(content, message, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "file", ARRAY.shape)


def test_a_damaged_gzip_file_is_refused(tmp_path):
    packed = gzip.compress(GOOD, mtime=0)
    path = tmp_path / "file.gz"
    path.write_bytes(packed[:-9])
    with pytest.raises(DataError, match=r"file\.gz is truncated: its compressed data has no end"):
        read_idx(path, ARRAY.shape)
    path.write_bytes(GOOD)
    with pytest.raises(DataError, match=r"file\.gz cannot be read: Not a gzipped file"):
        read_idx(path, ARRAY.shape)
    path.write_bytes(packed[:-8] + b"1234" + packed[-4:])
    with pytest.raises(DataError, match="cannot be read: CRC check failed"):
        read_idx(path, ARRAY.shape)
    path.write_bytes(packed[:10] + b"\xff" * 20)
    with pytest.raises(DataError, match=r"cannot be read: .*invalid block type"):
        read_idx(path, ARRAY.shape)


def test_a_gzip_file_that_unpacks_to_much_more_is_not_unpacked(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(GOOD + bytes(10_000_000), mtime=0))
    with pytest.raises(DataError, match="too long: it has more than 24 of 24 bytes"):
        read_idx(path, ARRAY.shape)
