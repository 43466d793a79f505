import re

import pytest
import torch
from between import graph_of, reasons, sizes
from torch import nn
from torch.nn import functional as F

from vibnet.graph.trial.probe import analyse

THIS = r"test_compute\.py:"


LAYERS = {
    "batch norm": (nn.BatchNorm2d(8), 2),
    "batch norm 1d": (nn.BatchNorm1d(8), 1),
    "batch norm 3d": (nn.BatchNorm3d(8), 3),
    "batch norm without weights": (nn.BatchNorm2d(8, affine=False), 2),
    "prelu": (nn.PReLU(8), 2),
    "prelu of one": (nn.PReLU(), 2),
    "gelu": (nn.GELU(), 2),
    "hardswish": (nn.Hardswish(), 2),
    "dropout": (nn.Dropout(), 2),
    "channel dropout": (nn.Dropout2d(), 2),
    "max pool": (nn.MaxPool2d(2), 2),
    "max pool 3d": (nn.MaxPool3d(2), 3),
    "average pool": (nn.AvgPool2d(2), 2),
    "average pool 1d": (nn.AvgPool1d(2), 1),
    "adaptive pool": (nn.AdaptiveAvgPool2d(2), 2),
    "adaptive max pool": (nn.AdaptiveMaxPool2d(2), 2),
    "interpolate": (nn.Upsample(scale_factor=2), 2),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), 2),
    "reflection pad": (nn.ReflectionPad2d(1), 2),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8), 2),
    "depthwise transposed": (nn.ConvTranspose2d(8, 8, 3, groups=8), 2),
    "spatial norm": (lambda x: F.normalize(x, dim=2), 2),
    "spatial mean": (lambda x: x.mean((2, 3), keepdim=True), 2),
    "spatial softmax": (lambda x: x.softmax(3), 2),
    "spatial cumsum": (lambda x: x.cumsum(2), 2),
    "spatial amax": (lambda x: x.amax((2, 3), keepdim=True), 2),
    "a new tensor of zeros": (lambda x: x + x.new_zeros(x.shape), 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_units_pass_through(name):
    step, rank = LAYERS[name]
    graph = graph_of(step, rank)
    assert sizes(graph)["a"] == 8
    assert set(reasons(graph)) == {"b"}
    site = next(s for s in graph.sites if s.name == "a")
    assert "b" in site.readers


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_dense_convolution_reads_its_input_and_writes_its_output(rank, transposed):
    kinds = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
    if transposed:
        kinds = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
    graph = graph_of(kinds[rank - 1](8, 6, 3), rank, read=6)
    assert [(s.name, s.size, s.readers) for s in graph.sites] == [
        ("a", 8, ("step",)),
        ("step", 6, ("b",)),
    ]
    a, step = graph.sites
    rows, columns = graph.parameters["step.weight"][:2]
    if transposed:
        rows, columns = columns, rows
    assert columns.tolist() == a.units.tolist()
    assert rows.tolist() == step.units.tolist()
    assert graph.parameters["step.bias"][0].tolist() == step.units.tolist()
    assert graph.blocks == []


def test_the_channels_of_a_batch_norm_are_those_it_normalises():
    graph = graph_of(nn.BatchNorm2d(8))
    units = graph.sites[0].units.tolist()
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert graph.parameters[f"step.{name}"][0].tolist() == units
    assert graph.parameters["step.num_batches_tracked"] == ()


def test_a_depthwise_convolution_makes_no_units_of_its_own():
    graph = graph_of(nn.Conv2d(8, 16, 3, groups=8), read=16)
    assert sizes(graph) == {"a": 8}
    assert graph.depthwise == {"step.weight"}
    rows = graph.parameters["step.weight"][0].tolist()
    assert rows == [u for u in graph.sites[0].units.tolist() for _ in range(2)]


def test_a_depthwise_transposed_convolution_makes_no_units_of_its_own():
    graph = graph_of(nn.ConvTranspose2d(8, 16, 3, groups=8), read=16)
    assert sizes(graph) == {"a": 8}
    assert graph.depthwise == {"step.weight"}
    bias = graph.parameters["step.bias"][0].tolist()
    assert bias == [u for u in graph.sites[0].units.tolist() for _ in range(2)]


def cumulated(x):
    return torch.cumsum(x, 1)


PINNED = {
    "softmax": (lambda x: x.softmax(1), "_softmax in step.*mixes it without a weight"),
    "cumsum": (cumulated, "cumsum in step.*mixes it without a weight"),
    "mean": (lambda x: x - x.mean(1, keepdim=True), "mean in step.*mixes it without a weight"),
    "a norm": (lambda x: F.normalize(x, dim=1), "linalg_vector_norm in step.*mixes it"),
    "sum of all": (lambda x: x / x.sum(), "sum in step.*mixes it without a weight"),
    "maximum": (lambda x: x - x.amax(1, keepdim=True), "amax in step.*mixes it"),
    "layer norm": (
        lambda x: F.layer_norm(x.movedim(1, -1), (8,)).movedim(-1, 1),
        "native_layer_norm in step.*takes a statistic over it",
    ),
    "group norm": (lambda x: F.group_norm(x, 1), "native_group_norm in step.*takes a statistic"),
    "fourier": (lambda x: torch.fft.fft(x, dim=1).real, "there is no rule for _fft_r2c in step"),
    "sort": (lambda x: x.sort(1)[0], "there is no rule for sort in step"),
    "own product": (
        lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2) @ x.flatten(2)).reshape(x.shape),
        "bmm in step.*mixes it without a weight",
    ),
    "a constant": (
        lambda x: x * torch.arange(8.0).reshape(8, 1, 1),
        "mul in step .* joins it with a constant made inside forward",
    ),
}


class Step(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", PINNED)
def test_units_that_a_call_mixes_are_pinned_with_call_module_and_line(name):
    function, reason = PINNED[name]
    graph = graph_of(Step(function))
    assert sizes(graph) == {}
    found = reasons(graph)["a"]
    assert re.search(reason, found), found
    if "constant" not in name:
        assert re.search(rf"in step \({THIS}\d+\)", found), found


def test_the_line_is_that_of_the_call():
    graph = graph_of(Step(cumulated))
    line = cumulated.__code__.co_firstlineno + 1
    assert reasons(graph)["a"].startswith(f"cumsum in step (test_compute.py:{line})")


def test_outputs_are_whole():
    assert reasons(graph_of(nn.ReLU()))["b"] == "it is an output of the model"


def test_a_weight_that_is_computed_cannot_be_cut():
    class Computed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.w = nn.Linear(4, 6), nn.Parameter(torch.randn(2, 6))

        def forward(self, x):
            return F.linear(self.a(x), self.w * 2)

    graph = analyse(Computed(), torch.randn(3, 4))
    assert sizes(graph) == {}
    assert re.search(r"without a weight|computed, not stored", reasons(graph)["a"])


def test_adding_two_writers_makes_one_site():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.c(self.a(x) + self.b(x))

    graph = analyse(Sum(), torch.randn(3, 4))
    assert [(s.size, s.writers, s.readers) for s in graph.sites] == [(6, ("a", "b"), ("c",))]


def test_a_unit_added_to_the_input_is_pinned():
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(self.a(x) + x)

    graph = analyse(Shortcut(), torch.randn(3, 4))
    assert "joins it with an axis that is no unit" in reasons(graph)["a"]


def test_the_columns_of_an_embedding_are_units_and_its_rows_are_not():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(5, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.table(x).relu())

    graph = analyse(Table(), torch.randint(0, 5, (3, 4)))
    assert sizes(graph) == {"table": 6}
    rows, columns = graph.parameters["table.weight"]
    assert set(rows.tolist()) == {-1}
    assert columns.tolist() == graph.sites[0].units.tolist()


def test_an_elementwise_call_that_gives_fewer_axes_than_it_is_given_does_not_end_the_look():
    class Quantile(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = self.a(x)
            return self.b(h + torch.quantile(h, 0.25, dim=1, keepdim=True))

    graph = analyse(Quantile(), torch.randn(2, 5, 4))
    assert re.search(rf"there is no rule for sort .*{THIS}", reasons(graph)["a"])
