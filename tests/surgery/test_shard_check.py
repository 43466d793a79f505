"""Files that were cut are verified layer by layer: faults are noticed, memory stays small."""

import numpy as np
import pytest
import torch
from hf import X, halved, llama
from networks import NETWORKS, lively
from safetensors.torch import save_file
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

import vibnet
from vibnet.errors import ArtefactError, ConfigError, VerificationError
from vibnet.graph.sites.constraints import legal
from vibnet.graph.sites.structure import Request
from vibnet.graph.trial.cut import remaining
from vibnet.graph.trial.probe import analyse
from vibnet.surgery import artefact, pretrained, shards
from vibnet.surgery import plan as planning
from vibnet.surgery.artefact import first_names
from vibnet.surgery.shards import prune_files
from vibnet.surgery.stored import Stored

LAYER = "model.layers.1"


def random_plan(model, example, seed=0, **asked):
    """A plan of a legal random half of all units."""
    graph = analyse(model, example, Request(**asked))
    score = np.random.default_rng(seed).random(graph.total)
    kept = legal(score > 0.5, score, [site.units for site in graph.sites], graph.blocks)
    return planning.of_graph(graph, kept)


def one_file(model, folder):
    folder.mkdir()
    state = model.state_dict(keep_vars=True)
    held = {first: state[first].detach().contiguous() for first in first_names(state).values()}
    save_file(held, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A Llama without numbers, a plan that leaves several heads, and its files."""
    model = llama(groups=4, attention_bias=True)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    folder = tmp_path_factory.mktemp("whole")
    model.save_pretrained(folder, max_shard_size="50KB")
    with torch.device("meta"):
        empty = type(model)(model.config)
    return empty, halved(model), folder


@pytest.fixture
def cut(sharded, tmp_path, monkeypatch):
    """Cuts the files and verifies; the model's own small configuration is not looked for."""
    monkeypatch.setattr(pretrained, "uniform_or_dense", lambda _small, _report, config: config)
    model, wanted, source = sharded
    target = tmp_path / "small"
    return target, lambda: prune_files(model, wanted, X, source, target, verify=True)


def test_a_right_cut_is_verified_in_every_module(cut):
    target, work = cut
    report = work()
    assert report.difference < 1e-13
    first, second = str(report).splitlines()[:2]
    assert "verified layer by layer: outputs of 31 modules moved by" in first
    assert second.endswith("uses some rows or none: model.embed_tokens.weight")
    names = {name.removeprefix(f"{LAYER}.") for name in report.layers.outputs}
    assert {"self_attn.q_proj", "self_attn", "mlp.act_fn", "input_layernorm", "lm_head"} <= names
    assert report.layers.apart == ()
    assert vibnet.load(target).get_submodule(LAYER).mlp.up_proj.out_features == 48


def columns(value, order):
    return value[:, order] if value.ndim == 2 else value[order]


def swapped(value):
    """Columns 0 and 1 change places."""
    return columns(value, [1, 0, *range(2, value.shape[-1])])


def rolled(value):
    """The first head comes last."""
    return value.roll(-8, 1)


def paired(value):
    """Two rows of a head, which a rotary embedding pairs with others, change places."""
    return value[[1, 0, *range(2, len(value))]]


def rounded(value):
    return value.bfloat16().float()


FAULTS = [
    (f"{LAYER}.mlp.down_proj.weight", swapped, f"outputs of {LAYER}.mlp.down_proj "),
    (f"{LAYER}.mlp.up_proj.weight", paired, f"outputs of {LAYER}.mlp.up_proj "),
    (f"{LAYER}.self_attn.o_proj.weight", rolled, f"outputs of {LAYER}.self_attn.o_proj "),
    (f"{LAYER}.self_attn.k_proj.weight", paired, f"outputs of {LAYER}.self_attn.k_proj "),
    (f"{LAYER}.self_attn.v_proj.weight", rounded, f"outputs of {LAYER}.self_attn.v_proj "),
    (f"{LAYER}.self_attn.q_proj.bias", swapped, f"outputs of {LAYER}.self_attn.q_proj "),
    (f"{LAYER}.input_layernorm.weight", swapped, f"outputs of {LAYER}.input_layernorm "),
    ("model.norm.weight", lambda v: v / 2**0.5, "outputs of model.norm "),
    ("model.embed_tokens.weight", swapped, "outputs of model.embed_tokens "),
    ("lm_head.weight", swapped, "outputs of lm_head "),
]


@pytest.mark.parametrize(("name", "fault", "match"), FAULTS)
def test_a_fault_in_a_written_file_is_noticed_where_it_is(name, fault, match, cut, monkeypatch):
    def wrong(value, own, graph, kept):
        right = remaining(value, own, graph, kept)
        return fault(right).contiguous() if own == name else right

    monkeypatch.setattr(shards, "remaining", wrong)
    target, work = cut
    with pytest.raises(VerificationError, match=match):
        work()
    assert not target.exists()


def test_a_row_that_the_example_does_not_use_is_compared_too(cut, monkeypatch):
    unused = sorted(set(range(100)) - set(X.flatten().tolist()))[-1]

    def wrong(value, own, graph, kept):
        right = remaining(value, own, graph, kept)
        if own == "model.embed_tokens.weight":
            right[unused, 3] += 1
        return right

    monkeypatch.setattr(shards, "remaining", wrong)
    target, work = cut
    with pytest.raises(VerificationError, match=r"model.embed_tokens.weight is not what the plan"):
        work()
    assert not target.exists()


@pytest.mark.parametrize(
    ("key", "name", "value", "match"),
    [
        ("eps", f"{LAYER}.input_layernorm.variance_epsilon", 1e-6, "outputs of .*input_layernorm"),
        ("eps", "model.norm.variance_epsilon", 4e-6, "outputs of model.norm moved"),
        ("numbers", f"{LAYER}.self_attn.num_key_value_groups", 1, "does not run|outputs of"),
        ("numbers", f"{LAYER}.self_attn.head_dim", 16, f"(does not run|outputs of {LAYER}.self)"),
    ],
)
def test_a_wrong_number_in_the_plan_is_noticed(key, name, value, match, cut, monkeypatch):
    def wrong(small, report):
        body, names = artefact.described(small, report)
        body[key] = {**body[key], name: value}
        return body, names

    monkeypatch.setattr(shards, "described", wrong)
    target, work = cut
    with pytest.raises(VerificationError, match=match):
        work()
    assert not target.exists()


def test_files_that_were_there_before_stay_when_a_cut_fails(cut, monkeypatch):
    target, work = cut
    work()
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    monkeypatch.setattr(shards, "remaining", lambda v, *rest: remaining(v, *rest) + 1)
    with pytest.raises(VerificationError):
        work()
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_no_more_than_the_weights_of_one_operation_are_in_memory(cut, monkeypatch):
    of, given, most, read_names = Stored.of, [], [0], []

    def watched(shape, dtype, read, used=None):
        def reading():
            value = read()
            given[:] = [(held, n) for held, n in given if not held.expired()]
            given.append((StorageWeakRef(value.untyped_storage()), value.numel()))
            most[0] = max(most[0], sum(n for _, n in given))
            read_names.append(tuple(value.shape))
            return value

        return of(shape, dtype, reading, used)

    monkeypatch.setattr(Stored, "of", watched)
    _, work = cut
    work()
    table, layer = 100 * 64, 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96
    assert len(read_names) > 50
    assert table <= most[0] <= table + 100
    assert most[0] < layer / 4


def test_a_norm_weight_may_be_rounded_to_the_type_of_the_file_and_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "uniform_or_dense", lambda _small, _report, config: config)
    model = llama().bfloat16()
    model.save_pretrained(tmp_path / "whole")
    wanted = halved(model)
    report = prune_files(model, wanted, X, tmp_path / "whole", tmp_path / "small", verify=True)
    assert report.difference < 1e-13

    def next_number(value, own, graph, kept):
        right = remaining(value, own, graph, kept)
        return right * (1 + 2**-7) if own == "model.norm.weight" else right

    monkeypatch.setattr(shards, "remaining", next_number)
    with pytest.raises(VerificationError, match=r"outputs of model\.norm moved"):
        prune_files(model, wanted, X, tmp_path / "whole", tmp_path / "other", verify=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_right_cuts_are_verified_and_swapped_columns_are_not(name, tmp_path, monkeypatch):
    model, example = NETWORKS[name](0)
    lively(model, example, 0)
    model, example = model.float().eval(), tuple(x.float() for x in example)
    wanted, source = random_plan(model, example), one_file(model, tmp_path / "whole")
    report = prune_files(model, wanted, example, source, tmp_path / "small", verify=True)
    assert report.difference < 1e-13
    assert report.layers.outputs
    assert report.layers.apart == ()
    readers = {r.parameter: r.dim for r in analyse(model, example).readers if (r.units >= 0).any()}
    faults = 0

    def wrong(value, own, graph, kept):
        nonlocal faults
        right = remaining(value, own, graph, kept)
        dim = readers.get(own)
        if dim is None or right.shape[dim] < 2:
            return right
        faults += 1
        return right.index_select(dim, torch.tensor([1, 0, *range(2, right.shape[dim])]))

    monkeypatch.setattr(shards, "remaining", wrong)
    with pytest.raises(VerificationError, match="outputs of"):
        prune_files(model, wanted, example, source, tmp_path / "other", verify=True)
    assert faults
    assert not (tmp_path / "other").exists()


class Scaled(nn.Module):
    """Units meet a buffer that is not saved, and answers another."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("scale", torch.arange(8.0) + 1, persistent=False)
        self.register_buffer("factor", torch.tensor([0.5, 2.0, 3.0]), persistent=False)

    def forward(self, x):
        return self.b(self.a(x) * self.scale) * self.factor


def test_a_buffer_that_no_file_holds_is_cut_and_verified(tmp_path):
    torch.manual_seed(0)
    model, x = Scaled(), torch.randn(3, 4)
    wanted, source = random_plan(model, x), one_file(model, tmp_path / "whole")
    report = prune_files(model, wanted, x, source, tmp_path / "small", verify=True)
    assert report.difference < 1e-14
    loaded, (small, _) = vibnet.load(tmp_path / "small", Scaled()), vibnet.prune(model, wanted, x)
    assert torch.equal(loaded.scale, small.scale)
    torch.testing.assert_close(loaded(x), small(x))


def test_a_tensor_without_numbers_is_refused_by_name(tmp_path):
    model, x = Scaled(), torch.randn(3, 4)
    wanted, source = random_plan(model, x), one_file(model, tmp_path / "whole")
    model.factor = model.factor.to("meta")
    with pytest.raises(ConfigError, match="factor of this Scaled must have numbers"):
        prune_files(model, wanted, x, source, tmp_path / "small", verify=True)
    model.scale = model.scale.to("meta")
    with pytest.raises(ArtefactError, match="scale is cut, but it is on the meta device"):
        prune_files(model, wanted, x, source, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_an_example_without_numbers_is_refused(tmp_path):
    model, x = Scaled(), torch.randn(3, 4)
    wanted, source = random_plan(model, x), one_file(model, tmp_path / "whole")
    with pytest.raises(ConfigError, match="the example is on the meta device"):
        prune_files(model, wanted, x.to("meta"), source, tmp_path / "small", verify=True)


def test_of_a_cut_that_moves_outputs_the_exact_part_is_verified(tmp_path):
    torch.manual_seed(0)
    layers = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    model, x = nn.Sequential(*layers), torch.randn(3, 4)
    wanted, source = random_plan(model, x, inexact=True), one_file(model, tmp_path / "whole")
    report = prune_files(model, wanted, x, source, tmp_path / "small", verify=True)
    _, known = vibnet.prune(model, wanted, x)
    assert report.difference < 1e-14
    assert report.moved == pytest.approx(known.moved, rel=1e-4)
    assert report.layers.parts == tuple(name for name, _ in model.named_parameters())


def test_answers_that_are_the_same_whatever_the_input_are_not_verified(tmp_path):
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), torch.randn(3, 4)
    with torch.no_grad():
        model[1].weight.zero_()
    wanted, source = random_plan(model, x), one_file(model, tmp_path / "whole")
    report = prune_files(model, wanted, x, source, tmp_path / "small", verify=True)
    assert report.difference is report.layers is None
    assert "not verified" in str(report)
