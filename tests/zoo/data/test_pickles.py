"""Arrays come out of a pickle; code does not."""

import io
import os
import pickle
import random
import struct

import numpy as np
import pytest
from tiny_sets import array, dictionary, numbers, text

from vibnet.errors import DataError
from vibnet.zoo.data.pickles import Array, read_pickle

ROWS = np.arange(600, dtype=np.uint8).reshape(2, 300)


def read(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    return read_pickle(tmp_path / "file")


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_an_array_of_python_2_comes_out_as_it_was(module, tmp_path):
    found = read(dictionary({b"data": array(ROWS, module=module)}), tmp_path)
    assert isinstance(found[b"data"], Array)
    assert found[b"data"].tensor.tolist() == ROWS.tolist()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_an_array_of_this_numpy_comes_out_as_it_was(protocol, tmp_path):
    found = read(pickle.dumps({"data": ROWS, "labels": [1, 2]}, protocol), tmp_path)
    data, labels = found.values()
    assert data.tensor.tolist() == ROWS.tolist()
    assert labels == [1, 2]


def test_our_pickle_of_python_2_is_one_that_numpy_itself_reads():
    found = pickle.load(io.BytesIO(dictionary({b"data": array(ROWS)})), encoding="bytes")
    assert found[b"data"].dtype == np.uint8
    assert found[b"data"].tolist() == ROWS.tolist()


class Runs:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(protocol, tmp_path):
    mark = tmp_path / "mark"
    hostile = pickle.dumps({"data": Runs(os.mkdir, (str(mark),))}, protocol)
    with pytest.raises(
        DataError, match=r"asks for (posix|os|nt)\.mkdir, which is no part of an ar"
    ):
        read(hostile, tmp_path)
    assert not mark.exists()
    pickle.loads(hostile)
    assert mark.exists()  # so the pickle was hostile indeed


NAME = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"
EMPTY = NAME + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"


def filled(shape, content=b"\x00" * 4, kind=DTYPE + b"U\x02u1\x85R", fortran=b"\x89"):
    return EMPTY + b"(K\x01" + shape + kind + fortran + text(content) + b"tb"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"cbuiltins\neval\n" + text(b"1") + b"\x85R", "asks for builtins.eval"),
        (b"cnumpy\nload\n" + text(b"x") + b"\x85R", "asks for numpy.load"),
        (b"cnumpy.core.multiarray\nndarray\n", "asks for numpy.core.multiarray.ndarray"),
        (b"c_codecs\ndecode\n", "asks for _codecs.decode"),
        (b"cnumpy\nndarray\nK\x04\x85R", "calls ndarray in a way"),
        (NAME + b"cnumpy\nndarray\n\x85b", "changes _reconstruct"),
        (NAME + b"(NtR", "calls _reconstruct in a way"),
        (DTYPE + text(b"O") + b"\x85R", "calls dtype in a way that makes no bytes"),
        (DTYPE + text(b"f8") + b"\x85R", "calls dtype in a way"),
        (filled(b"K\x05\x85"), r"an array of shape \(5,\) in 4 bytes"),
        (filled(b"J\xff\xff\xff\xffJ\xfc\xff\xff\xff\x86"), r"an array of shape \(-1, -4\)"),
        (filled(b"K\x00\x85", content=b""), r"an array of shape \(0,\) in 0 bytes"),
        (filled(b"K\x04\x85", kind=b"N"), "an array of anything but unsigned bytes"),
        (filled(b"K\x04\x85", fortran=b"\x88"), "an array of anything but unsigned bytes in C or"),
        (EMPTY + b"(K\x01tb", "cannot be read as a pickle of arrays: not enough values"),
        (b"P0\n", "cannot be read as a pickle of arrays: .*persistent"),
        (b"\x82\x01", "cannot be read as a pickle of arrays: .*extension"),
        (b"", "cannot be read as a pickle of arrays"),
    ],
)
def test_a_pickle_that_asks_for_more_is_refused(body, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read(b"\x80\x02" + body + b".", tmp_path)


def test_an_array_without_a_fault_passes_where_the_faulty_ones_do_not(tmp_path):
    found = read(b"\x80\x02" + filled(b"K\x02K\x02\x86", content=b"\1\2\3\4") + b".", tmp_path)
    assert found.tensor.tolist() == [[1, 2], [3, 4]]


def test_damage_of_any_kind_gives_our_error_or_plain_values(tmp_path):
    whole = dictionary({b"labels": numbers([1, 2]), b"data": array(ROWS[:, :8])})
    rng = random.Random(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.choice([b for b in range(256) if b not in b"rj"])
        try:
            read(bytes(damaged), tmp_path)
        except DataError:
            refused += 1
    assert refused > 500


def test_a_file_that_is_no_pickle_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"file cannot be read as a pickle .*Nothing of it has been"
    ):
        read(struct.pack("<I", 12345), tmp_path)
