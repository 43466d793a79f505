import torch

from vibnet.cost.tensors import batch_of, tensors


def test_tensors_are_found_in_nested_arguments():
    a, b = torch.ones(1), torch.ones(2)
    assert [x is y for x, y in zip(tensors((a, [3, {"k": b}]), None), (a, b), strict=True)] == [
        True,
        True,
    ]


def test_the_batch_is_that_of_the_first_tensor_that_has_one():
    assert batch_of([torch.tensor(1.0), torch.ones(0, 3), torch.ones(5, 2), torch.ones(7)]) == 5
    assert batch_of([]) == 1
