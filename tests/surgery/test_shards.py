"""Files cut one after the other give the model that prune gives."""

from dataclasses import replace

import pytest
import torch
from hf import X, config_in, halved, llama, same, transformers
from safetensors.torch import load_file, save_file
from torch import nn

import vibnet
from vibnet.errors import ArtefactError, ConfigError, PlanError
from vibnet.surgery import shards
from vibnet.surgery.shards import prune_files


def three(width=6):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


EXAMPLE = torch.ones(2, 4)


def files(model, folder):
    """The model in two files."""
    folder.mkdir()
    state = model.state_dict()
    for part in ("0", "2"):
        held = {k: v for k, v in state.items() if k.startswith(part)}
        save_file(held, folder / f"part-{part}.safetensors")
    return folder


def test_the_files_hold_what_prune_gives(tmp_path):
    model = three()
    wanted = halved(model, EXAMPLE)
    source = files(model, tmp_path / "whole")
    with torch.device("meta"):
        empty = three()
    report = prune_files(empty, wanted, EXAMPLE, source, tmp_path / "small")
    assert str(report).startswith("cut: 44 -> 23 parameters, not verified")
    small, verified = vibnet.prune(model, wanted, EXAMPLE)
    assert report.plan.kept == verified.plan.kept
    assert len(list((tmp_path / "small").glob("*.safetensors"))) == 2
    loaded = vibnet.load(tmp_path / "small", three(6))
    assert torch.equal(loaded(EXAMPLE), small(EXAMPLE))
    assert all(p.is_meta for p in empty.parameters())


def test_a_single_file_is_cut_too(tmp_path):
    model = three()
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    prune_files(model, halved(model, EXAMPLE), EXAMPLE, path, tmp_path / "small")
    assert vibnet.load(tmp_path / "small", three())[0].out_features == 3


@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_of_transformers_is_cut_shard_by_shard(tied, tmp_path):
    hf = transformers()
    model = llama(tie_word_embeddings=tied)
    wanted = halved(model)
    model.save_pretrained(tmp_path / "whole", max_shard_size="50KB")
    with torch.device("meta"):
        empty = type(model)(model.config)
    prune_files(empty, wanted, X, tmp_path / "whole", tmp_path / "small")
    small, _ = vibnet.prune(model, wanted, X)
    assert len(list((tmp_path / "small").glob("*.safetensors"))) > 2
    assert config_in(tmp_path / "small")["num_attention_heads"] == 4
    assert same(vibnet.load(tmp_path / "small"), small)
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert same(loaded, small)


def refused(match, model, wanted, source, tmp_path, error=ArtefactError):
    with pytest.raises(error, match=match):
        prune_files(model, wanted, EXAMPLE, source, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def altered(change, tmp_path):
    """A folder whose first file was changed."""
    source = files(three(), tmp_path / "whole")
    path = source / "part-0.safetensors"
    held = load_file(path)
    change(held)
    save_file(held, path)
    return source


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda h: h.update(x=torch.ones(1)), r"part-0\.safetensors .* holds x, which .* not have"),
        (lambda h: h.pop("0.bias"), r"lack 1 tensors of this Sequential: 0\.bias"),
        (lambda h: h.update({"0.bias": torch.ones(7)}), r"0\.bias has shape \(7,\) .* but \(6,\)"),
    ],
)
def test_files_of_another_model_are_refused_before_anything_is_written(change, match, tmp_path):
    model = three()
    refused(match, model, halved(model, EXAMPLE), altered(change, tmp_path), tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    model = three()
    wanted = halved(model, EXAMPLE)
    refused("there is no safetensors file in", model, wanted, tmp_path, tmp_path)
    source = files(model, tmp_path / "whole")
    (source / "part-2.safetensors").write_bytes(b"short")
    refused(r"part-2\.safetensors cannot be read", model, wanted, source, tmp_path)
    (source / "model.safetensors.index.json").write_text("[]")
    refused(r"index\.json cannot be read", model, wanted, source, tmp_path)
    for text in ('{"weight_map": {"a": 3}}', '{"weight_map": {"a": null}}', '{"weight_map": {}}'):
        (source / "model.safetensors.index.json").write_text(text)
        refused(r"index\.json cannot be read", model, wanted, source, tmp_path)


def test_the_whole_model_is_never_written_over(tmp_path):
    model = three()
    source = files(model, tmp_path / "whole")
    before = {p.name: p.read_bytes() for p in source.iterdir()}
    with pytest.raises(ArtefactError, match="where the files of the whole model lie"):
        prune_files(model, halved(model, EXAMPLE), EXAMPLE, source, source)
    assert {p.name: p.read_bytes() for p in source.iterdir()} == before


def test_a_plan_that_picks_features_or_of_another_model_is_refused(tmp_path):
    model = three()
    source = files(model, tmp_path / "whole")
    wanted = halved(model, EXAMPLE)
    picked = replace(wanted, inputs=True)
    refused(
        r"picks single features or inputs.*vibnet\.prune",
        model,
        picked,
        source,
        tmp_path,
        PlanError,
    )
    refused("made for another model", three(8), wanted, source, tmp_path, PlanError)


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 4, batch_first=True)
        self.up, self.down = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.down(self.up(self.inner(x, x, x, need_weights=False)[0]).relu())


def test_a_plan_that_replaces_attentions_is_refused_by_name(tmp_path):
    model, example = Attends().eval(), torch.randn(2, 5, 8)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    plan = vibnet.plan(model, example, replace_attention=True)
    with pytest.raises(PlanError, match=r"made with replace_attention=True.* Use vibnet\.prune"):
        prune_files(model, plan, example, tmp_path, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_files_of_a_parametrised_model_in_training_are_verified(tmp_path):
    def make():
        first = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 7))
        return nn.Sequential(first, nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))

    torch.manual_seed(0)
    model, example = make(), torch.randn(5, 4)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    plan = halved(model, example)
    report = prune_files(make(), plan, example, tmp_path, tmp_path / "small", verify=True)
    assert report.difference is not None
    assert report.difference < 1e-12
    assert vibnet.load(tmp_path / "small", make())[2].out_features == 3


def test_a_verified_cut_writes_what_an_unverified_one_does(tmp_path):
    model = three()
    wanted, source = halved(model, EXAMPLE), files(model, tmp_path / "whole")
    for name, verify in (("plain", False), ("verified", True)):
        report = prune_files(model, wanted, EXAMPLE, source, tmp_path / name, verify=verify)
        assert ("not verified" in str(report)) != verify
    plain, verified = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("plain", "verified")
    )
    assert plain == verified


def test_nothing_is_left_where_a_file_breaks_off(tmp_path, monkeypatch):
    model = three()
    wanted, source = halved(model, EXAMPLE), files(model, tmp_path / "whole")
    monkeypatch.setattr(shards, "_unsaved", lambda *_: [{"broken": None}])
    with pytest.raises(ValueError, match="broken"):
        prune_files(model, wanted, EXAMPLE, source, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_verify_is_yes_or_no(tmp_path):
    model = three()
    with pytest.raises(ConfigError, match="verify must be"):
        prune_files(model, halved(model, EXAMPLE), EXAMPLE, tmp_path, tmp_path, verify="layers")


def test_a_tensor_in_two_files_is_refused(tmp_path):
    model = three()
    source = files(model, tmp_path / "whole")
    save_file({"0.bias": torch.ones(6)}, source / "part-3.safetensors")
    with pytest.raises(ArtefactError, match=r"0\.bias is in part-0.* and in part-3"):
        prune_files(model, halved(model, EXAMPLE), EXAMPLE, source, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_an_example_without_numbers_verifies_nothing(tmp_path):
    model, nothing = three(), torch.zeros(0, 4)
    source = files(model, tmp_path / "whole")
    wanted = halved(model, nothing)
    report = prune_files(model, wanted, nothing, source, tmp_path / "small", verify=True)
    assert report.difference is None
    assert vibnet.prune(model, wanted, nothing)[1].difference is None
