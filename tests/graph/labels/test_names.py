import numpy as np

from vibnet.graph.labels.names import Names


def of(names):
    return [names.lists[n] for n in names.number.tolist()]


def test_names_are_listed_once_in_the_order_given():
    names = Names(5)
    names.add(np.array([1, 2, 3]), "a")
    names.add(np.array([3, 2, 2]), "b")
    names.add(np.array([1, 2, 3, 4]), "a")
    assert of(names) == [(), ("a",), ("a", "b"), ("a", "b"), ("a",)]


def test_the_same_list_has_one_number():
    names = Names(4)
    names.add(np.array([0]), "a")
    names.add(np.array([1, 2]), "a")
    assert len(set(names.number[:3].tolist())) == 1
    assert names.index(("a",)) == names.number[0]
    assert names.number[3] == names.index(()) == 0


def test_only_the_first_name_stays_where_one_is_wanted():
    names = Names(3)
    names.first(np.array([0, 1]), "x")
    names.first(np.array([1, 2]), "y")
    assert of(names) == [("x",), ("x",), ("y",)]
