import pytest
import torch
from laws import halved, law_one
from torch import nn

import vibnet
from vibnet.graph.trial.probe import analyse


class Order(nn.Module):
    """A buffer of channel numbers, and a way to use it."""

    def __init__(self, use, numbers=(3, 0, 7, 1), saved=True, kind=torch.int64):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(len(numbers), 4, 1)
        self.register_buffer("order", torch.tensor(numbers, dtype=kind), persistent=saved)
        self.use = use

    def forward(self, x):
        return self.b(self.use(self.a(x), self.order))


def picked(x, order):
    return x[:, order]


PICKS = {
    "index": (picked, (3, 0, 7, 1)),
    "index_select": (lambda x, order: x.index_select(1, order), (3, 0, 7, 1)),
    "negative": (picked, (-1, 0, -8)),
    "repeated": (picked, (2, 2, 5)),
    "cast": (lambda x, order: x[:, order.long()], (3, 0, 7, 1)),
}


@pytest.mark.parametrize("name", PICKS)
@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_units_picked_by_a_buffer_can_be_cut(name, kind):
    use, numbers = PICKS[name]
    graph = analyse(Order(use, numbers, kind=kind), torch.randn(2, 3, 6, 6))
    writer = graph.parameters["a.weight"][0]
    assert sum(s.size for s in graph.sites) == len(set(writer[list(numbers)].tolist()))
    assert graph.remaps["order"].tolist() == writer.tolist()
    reader = next(r for r in graph.readers if r.parameter == "b.weight")
    assert reader.units.tolist() == writer[list(numbers)].tolist()
    assert graph.parameters["order"][0].tolist() == reader.units.tolist()


NOT_PICKS = {
    "another use": (lambda x, order: x[:, order] + order.sum(), {}, "has another use too"),
    "changed": (lambda x, order: x[:, order.add_(0)], {}, "has another use too"),
    "not saved": (picked, {"saved": False}, "picks positions by number"),
    "computed": (lambda x, order: x[:, order + 0], {}, "picks positions by number"),
    "part of it": (lambda x, order: x[:, order[:4]], {}, "picks positions by number"),
    "two sizes": (
        lambda x, order: x[:, order] + torch.cat([x, x], 1)[:, order],
        {},
        "picks positions by number",
    ),
}


@pytest.mark.parametrize("name", NOT_PICKS)
def test_units_picked_in_any_other_way_are_pinned(name):
    use, options, why = NOT_PICKS[name]
    numbers = (3, 0, 7, 1, 2) if name == "part of it" else (3, 0, 7, 1)
    model = Order(use, numbers, **options)
    if name == "part of it":
        model.b = nn.Conv2d(4, 4, 1)
    graph = analyse(model, torch.randn(2, 3, 6, 6))
    assert graph.sites == []
    assert graph.total == 0
    assert any(why in s.reason for s in graph.pinned), [s.reason for s in graph.pinned]


class Biased(nn.Module):
    """Attention with a learned bias for every head and distance, looked up by a grid of numbers."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 12) for _ in range(3))
        self.o = nn.Linear(12, 8)
        self.bias = nn.Parameter(torch.randn(3, 9))
        place = torch.arange(5)
        self.register_buffer("grid", place[:, None] - place[None] + 4, persistent=False)

    def forward(self, x):
        q, k, v = (f(x).view(*x.shape[:2], -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3) + self.bias[:, self.grid]
        h = scores.softmax(-1) @ v
        return self.o(h.transpose(1, 2).flatten(2))


def test_a_grid_of_numbers_pins_the_axis_it_picks_from_only():
    tokens = torch.randn(2, 5, 8)
    graph = analyse(Biased(), tokens)
    assert [(s.name, s.size) for s in graph.sites] == [("q", 3)]
    assert graph.parameters["bias"][0].tolist() == [0, 1, 2]
    assert (graph.parameters["bias"][1] < 0).all()
    assert law_one(Biased(), tokens) is not None


def test_a_mask_of_positions_pins_everything():
    graph = analyse(
        Order(lambda x, _: x[x > 0].reshape(1, -1, 1, 1)[:, :4]), torch.randn(2, 3, 6, 6)
    )
    assert graph.sites == []


def test_the_halves_of_a_gated_unit_go_together():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 2, 3)

        def forward(self, x):
            return self.b(nn.functional.glu(self.a(x), 1))

    images = torch.randn(2, 3, 6, 6)
    graph = analyse(Halves(), images)
    assert [(s.name, s.size) for s in graph.sites] == [("a", 4)]
    assert graph.parameters["a.weight"][0].tolist() == [0, 1, 2, 3] * 2
    assert law_one(Halves(), images) is not None


class Placed(nn.Module):
    """Two layers of eight units for each of five tokens, used in one way, and a reader."""

    def __init__(self, use):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2)
        self.use = use

    def forward(self, x):
        return self.out(self.use(self.a(x).tanh(), self.b(x).sigmoid()))


MASK = torch.tensor([[True, False, True, False, False], [False, True, True, True, False]])
TWO = torch.tensor([3, 1])


def put(x, places, values):
    x = x * 1
    x[places] = values
    return x


PLACED = {
    "rows": lambda a, b: a[[1, 0, 1]] * b[[0, 0, 1]],
    "positions": lambda a, b: a[:, [4, 0, 2]] + b[:, [1, 1, 0]],
    "rows and positions": lambda a, b: a[[0, 1, 1], [2, 0, 4]] * b[[1, 1, 0], [0, 3, 4]],
    "a grid": lambda a, b: a[:, [[4, 0], [1, 2]]] + b[:, None, [3, 1]],
    "axes apart": lambda a, b: torch.stack([a, b], 1)[[0, 1], :, [3, 1]],
    "a mask of two axes": lambda a, b: a[MASK] * b[~MASK][:5].sum(0),
    "a mask of rows": lambda a, b: (a * b)[torch.tensor([True, False])],
    "put at positions": lambda a, b: put(a, (slice(None), TWO), b[:, :2]),
    "put at rows and positions": lambda a, b: put(a, (TWO % 2, TWO), b[TWO - 1 > 0, 0]),
    "put one number": lambda a, b: put(a, MASK, 0.5) * b,
    "put one row": lambda a, b: put(a, MASK, b[0, 0]),
    "added": lambda a, b: a.index_add(1, TWO, b[:, :2], alpha=2),
    "added in place": lambda a, b: (a * 1).index_add_(1, TWO, b[:, 2:4]),
    "copied": lambda a, b: a.index_copy(1, TWO, b[:, :2]),
}
FIXED = {
    "units by number": lambda a, b: a[:, :, [0, 1, 2, 3, 4, 5, 6, 7]] * b,
    "units by mask": lambda a, b: a[..., torch.ones(8, dtype=torch.bool)] * b,
    "put into units": lambda a, b: put(a, (slice(None), slice(None), TWO), 0.0) * b,
    "units into picked places": lambda a, b: put(
        a, (TWO % 2, slice(None), torch.arange(8)[:, None]), b[0, 0, :, None, None]
    ),
    "added to units": lambda a, b: a.index_add(2, torch.arange(8), b),
}


@pytest.mark.parametrize("name", PLACED)
def test_axes_that_nothing_picks_from_are_cut(name):
    torch.manual_seed(0)
    model, x = Placed(PLACED[name]), torch.randn(2, 5, 3)
    found = vibnet.plan(model, x)
    assert found.sizes == {"a": 8}
    small, report = vibnet.prune(model, halved(found), x)
    assert small.a.out_features == small.b.out_features == 4
    assert report.difference < 1e-12


@pytest.mark.parametrize("name", FIXED)
def test_axes_that_numbers_pick_from_stay_whole(name):
    graph = analyse(Placed(FIXED[name]), torch.randn(2, 5, 3))
    assert graph.sites == []
    why = next(s.reason for s in graph.pinned if s.name == "a")
    assert "picks positions by number" in why or "another axis" in why


@pytest.mark.parametrize("copy", [False, True])
def test_a_single_number_for_a_place(copy):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            y = self.b(self.a(x).relu())
            at, zeros = torch.tensor(1), torch.zeros(4)
            place = zeros.index_copy if copy else zeros.index_add
            return y / (1 + place(0, at, y.sum()).sum().abs())

    assert vibnet.plan(Counting(), torch.randn(2, 3)).sizes == {"a": 8}
