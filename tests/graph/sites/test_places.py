import pytest
import torch
from laws import law_one
from networks import NETWORKS
from torch import nn
from torch.nn import functional as F

from vibnet import attach, prune
from vibnet.errors import NoSitesError
from vibnet.graph.trial.probe import analyse

X = torch.randn(3, 4)


def places(model, example=X):
    return [(p.module, p.argument, p.dim, p.repeat) for p in analyse(model, example).places]


def test_a_gate_stands_at_the_input_of_the_module_that_reads():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    graph = analyse(model, X)
    (place,) = graph.places
    assert (place.module, place.argument, place.dim, place.repeat) == ("2", 0, 1, 1)
    assert place.units.tolist() == graph.sites[0].units.tolist()


def test_tokens_are_counted_with_their_example():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    assert places(model, torch.randn(3, 5, 4)) == [("2", 0, 2, 1)]

    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, x):
            return self.body(x.flatten(0, 1))

    assert places(Folded(), torch.randn(3, 5, 4)) == [("body.2", 0, 1, 5)]


class Bare(nn.Module):
    """A stored weight used in the model's own forward, after a module or after a function."""

    def __init__(self, module, another=False):
        super().__init__()
        self.a, self.act = nn.Linear(4, 6), nn.ReLU()
        self.w = nn.Parameter(torch.randn(2, 6))
        self.module, self.another = module, another

    def forward(self, x):
        h = self.a(x)
        h = self.act(h) if self.module else torch.relu(h)
        y = F.linear(h, self.w)
        return y * h.mean() if self.another else y


def test_a_gate_stands_at_an_output_where_no_module_reads():
    assert places(Bare(module=True)) == [("act", -1, 1, 1)]


def test_where_no_gate_can_stand_the_site_says_so():
    graph = analyse(Bare(module=False), X)
    assert graph.places == []
    (site,) = graph.sites
    assert (site.name, site.reason) == ("a", "")
    assert "so no gate can stand there" in site.ungated


def test_every_site_that_can_be_gated_has_a_place_with_its_units():
    for name in ("cnn", "unet", "residual_pre", "tied_module", "channel_shuffle"):
        graph = analyse(*NETWORKS[name](0))
        covered = {u for p in graph.places for u in p.units.tolist()}
        for site in graph.sites:
            if not site.ungated:
                assert set(site.units.tolist()) <= covered, (name, site.name)


class ReadsAndPasses(nn.Module):
    """Reads its input with a weight of its own and hands it on to a layer of its own."""

    def __init__(self):
        super().__init__()
        self.w, self.inner = nn.Parameter(torch.randn(2, 6)), nn.Linear(6, 2)

    def forward(self, x):
        return F.linear(x, self.w) + self.inner(torch.tanh(x))


def test_a_module_that_uses_its_input_for_something_else_too_holds_no_gate():
    model = nn.Sequential(nn.Linear(4, 6), ReadsAndPasses())
    graph = analyse(model, X)
    (site,) = graph.sites
    assert [(p.module, p.argument) for p in graph.places] == [("1.inner", 0)]
    assert "linear in 1 " in site.ungated or "mm in 1 " in site.ungated
    assert "does not read its module's own input" in site.ungated
    with pytest.raises(NoSitesError, match=r"0: .* does not read its module's own input"):
        attach(model, X)


class GivesBack(nn.Module):
    """Reads its input with a weight of its own, and gives a view of it, or itself, to others."""

    def __init__(self, how):
        super().__init__()
        self.weight, self.how = nn.Parameter(torch.randn(3, 6)), how

    def forward(self, x):
        return F.linear(x, self.weight), self.how(x)


class ReadsBoth(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.make, self.block = nn.Linear(4, 6), GivesBack(how)
        self.first, self.second = nn.Linear(3, 2), nn.Linear(6, 2)

    def forward(self, x):
        a, b = self.block(self.make(x))
        return self.first(a) + self.second(b.flatten(1).abs())


GIVEN_ON = {
    "itself": lambda x: x,
    "with an axis more": lambda x: x[:, :, None],
    "in two parts": lambda x: x.unflatten(1, (2, -1)),
}


@pytest.mark.parametrize("how", GIVEN_ON)
def test_a_gate_does_not_stand_before_a_module_that_gives_its_input_on(how):
    graph = analyse(ReadsBoth(GIVEN_ON[how]), X)
    site = next(s for s in graph.sites if s.name == "make")
    assert site.ungated.startswith(("mm in block", "linear in block"))
    assert "does not read its module's own input" in site.ungated
    assert all(p.module != "block" for p in graph.places)


def test_a_model_that_batches_its_inputs_itself_holds_no_gates_and_says_why():
    class Batches(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))

        def forward(self, images):
            return self.body(torch.stack(images))

    images = [torch.randn(3, 4, 4), torch.randn(3, 4, 4)]
    (site,) = analyse(Batches(), (images,)).sites
    assert "whose first dimension is not seen to count the examples that the model is given" in (
        site.ungated
    )
    assert "convolution in body.2" in site.ungated
    assert analyse(Batches().body, torch.stack(images)).sites[0].ungated == ""


def test_two_examples_of_one_batch_share_no_gate():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x, y):
            return self.b(self.a(torch.cat([x, y])).relu())

    (site,) = analyse(Pairs(), (torch.randn(3, 4), torch.randn(3, 4))).sites
    assert "is not seen to count the examples" in site.ungated


class MixesTokens(nn.Module):
    """Channels that a layer over tokens hands on, and that others read: as in a mixer."""

    def __init__(self):
        super().__init__()
        self.make, self.tokens = nn.Linear(4, 6), nn.Linear(5, 5)
        self.read, self.last = nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x):
        h = self.make(x)
        h = h + self.tokens(h.transpose(1, 2)).transpose(1, 2)
        return self.read(h).sum() + self.last(h)


def test_a_layer_over_another_axis_is_no_place_for_the_units_it_hands_on():
    torch.manual_seed(0)
    model, x = MixesTokens().double(), torch.randn(3, 5, 4).double()
    graph = analyse(model, x)
    assert {p.module for p in graph.places} == {"read", "last"}
    gated = attach(model, x)
    with torch.no_grad():
        gated.gate("make").mu.copy_(torch.tensor([1e-6, 2.0, -1.0, 1e-6, 0.5, 3.0]))
    _, report = prune(gated.eval())
    assert report.difference < 1e-12


class Keeps(nn.Module):
    """Keeps what it gives, or a view of it; that is made by itself or by a layer inside."""

    def __init__(self, how=None, inner=False):
        super().__init__()
        self.weight = None if inner else nn.Parameter(torch.randn(6, 4))
        self.inner = nn.Linear(4, 6) if inner else None
        self.how, self.kept = how, None

    def forward(self, x):
        h = self.inner(x) if self.inner else F.linear(x, self.weight).relu()
        self.kept = self.how(h) if self.how else None
        return h


class ReadsKept(nn.Module):
    """Reads what a module gives, and what it keeps."""

    def __init__(self, block):
        super().__init__()
        self.block = block
        self.w, self.v = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(2, 6))

    def forward(self, x):
        h = self.block(x)
        kept = h if self.block.kept is None else self.block.kept.flatten(1)
        return F.linear(h, self.w) + F.linear(kept, self.v)


KEPT = {"itself": lambda h: h, "a view": lambda h: h[:, :, None], "in a list": lambda h: [h][0]}


@pytest.mark.parametrize("how", KEPT)
def test_behind_a_module_that_keeps_what_it_gives_stands_no_gate(how):
    site = analyse(ReadsKept(Keeps()), X).sites[0]
    assert (site.name, site.ungated) == ("block", "")
    site = analyse(ReadsKept(Keeps(KEPT[how])), X).sites[0]
    assert site.name == "block"
    assert "so no gate can stand there" in site.ungated


def test_what_a_module_keeps_of_another_inside_it_has_passed_the_gate():
    torch.manual_seed(0)
    model, x = ReadsKept(Keeps(KEPT["itself"], inner=True)).double(), X.double()
    gated = attach(model, x)
    assert [(p.at, p.argument) for p in gated.places] == [("block.inner", -1)]
    with torch.no_grad():
        gated.gate("block.inner").mu.copy_(torch.tensor([1e-6, 2.0, -1.0, 1e-6, 0.5, 3.0]))
    _, report = prune(gated.eval())
    assert report.difference < 1e-12


class ReadsAndKeeps(nn.Module):
    def __init__(self, keeps):
        super().__init__()
        self.weight, self.keeps, self.seen = nn.Parameter(torch.randn(3, 6)), keeps, None

    def forward(self, x):
        self.seen = x if self.keeps else None
        return F.linear(x, self.weight)


class ReadsSeen(nn.Module):
    def __init__(self, keeps):
        super().__init__()
        self.make, self.block, self.other = nn.Linear(4, 6), ReadsAndKeeps(keeps), nn.Linear(6, 3)

    def forward(self, x):
        h = self.make(x)
        y = self.block(h)
        return y + self.other(h if self.block.seen is None else self.block.seen)


def test_before_a_module_that_keeps_what_it_reads_stands_no_gate():
    assert places(ReadsSeen(keeps=False)) == [("block", 0, 1, 1), ("other", 0, 1, 1)]
    site = analyse(ReadsSeen(keeps=True), X).sites[0]
    assert "mm in block" in site.ungated
    assert "does not read its module's own input" in site.ungated


class Aside(nn.Module):
    """A layer reads what the head reads, and the answers are asked for by a flag."""

    def __init__(self):
        super().__init__()
        self.a, self.aside, self.b = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(6, 2)

    def forward(self, x, more=False):
        h = self.a(x)
        aside = self.aside(h)
        return (self.b(h), aside) if more else self.b(h)


def test_a_layer_that_no_answer_needed_has_its_gate():
    graph = analyse(Aside(), X)
    assert {p.module for p in graph.places} == {"aside", "b"}
    gated = attach(Aside().double(), X.double())
    gated.gate("a").log_var.data[:3] = 5.0
    small, _ = prune(gated.eval())
    torch.testing.assert_close(small(X.double(), True), gated(X.double(), True))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_a_gate_stands_before_a_convolution_that_pads_by_itself(mode):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, padding_mode=mode)
    )
    images = torch.randn(2, 1, 8, 8)
    assert [(p.module, p.argument) for p in analyse(model, images).places] == [("2", 0)]
    assert law_one(model, images) is not None


def test_a_gate_stands_before_a_convolution_that_pads_unequally_with_zeros():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 6, 3), nn.ReLU(), Unequal(6, 4, 4))
    signal = torch.randn(2, 1, 10)
    assert [(p.module, p.argument) for p in analyse(model, signal).places] == [("2", 0)]
    assert law_one(model, signal) is not None


class Unequal(nn.Conv1d):
    def _conv_forward(self, x, weight, bias):
        return nn.functional.conv1d(nn.functional.pad(x, (1, 2)), weight, bias)


def test_padding_with_a_number_is_no_place():
    class Ones(nn.Conv1d):
        def _conv_forward(self, x, weight, bias):
            return nn.functional.conv1d(nn.functional.pad(x, (1, 1), value=1.0), weight, bias)

    model = nn.Sequential(nn.Conv1d(1, 6, 3), nn.ReLU(), Ones(6, 4, 3))
    (site,) = analyse(model, torch.randn(2, 1, 8)).sites
    assert "so no gate can stand there" in site.ungated
