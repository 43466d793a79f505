"""Models of transformers: saved with their configuration, loaded by one call."""

import json

import pytest
import torch
from hf import X, config_in, halved, llama, same, transformers
from torch import nn

import vibnet
from vibnet.errors import ArtefactError
from vibnet.surgery.files import body_of
from vibnet.surgery.pretrained import CONFIG, INDEX, config_of


@pytest.mark.parametrize(("groups", "left"), [(8, 4), (2, 1)])
def test_equal_widths_are_written_into_the_configuration(groups, left, tmp_path):
    model = llama(groups)
    small, _ = vibnet.prune(model, halved(model), X)
    vibnet.save(small, tmp_path)
    found, before = config_in(tmp_path), config_of(model)
    changed = {k: v for k, v in found.items() if v != before[k]}
    assert changed == {
        "hidden_size": 32,
        "rms_norm_eps": 2e-6,
        "num_attention_heads": 4,
        "num_key_value_heads": left,
        "intermediate_size": 48,
    }
    hf = transformers()
    assert same(hf.AutoModelForCausalLM.from_pretrained(tmp_path).eval(), small)
    assert same(vibnet.load(tmp_path), small)


def test_unequal_widths_come_back_by_one_call_and_from_pretrained_refuses_them(tmp_path):
    model = llama()
    wanted = halved(model)
    wanted.kept["model.layers.1.mlp.gate_proj"] = [0, 1, 2]
    small, _ = vibnet.prune(model, wanted, X)
    vibnet.save(small, tmp_path)
    assert config_in(tmp_path) == config_of(model)
    loaded = vibnet.load(tmp_path)
    assert same(loaded, small)
    assert not loaded.training
    assert type(loaded) is type(model)
    hf = transformers()
    with pytest.raises(RuntimeError, match="mismatch"):
        hf.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_class_that_cannot_be_told_its_heads_keeps_its_configuration(tmp_path):
    hf = transformers()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    torch.manual_seed(0)
    model = hf.BertModel(hf.BertConfig(**sizes, num_attention_heads=4, vocab_size=100)).eval()
    small, _ = vibnet.prune(model, halved(model), X)
    vibnet.save(small, tmp_path)
    assert config_in(tmp_path) == config_of(model)
    with torch.no_grad():
        first, second = (m(X).last_hidden_state for m in (vibnet.load(tmp_path), small.eval()))
    assert torch.equal(first, second)


def test_the_type_of_the_numbers_comes_back(tmp_path):
    model = llama().to(torch.bfloat16)
    small, _ = vibnet.prune(model, halved(model), X)
    vibnet.save(small, tmp_path)
    assert config_in(tmp_path)["dtype"] == "bfloat16"
    assert vibnet.load(tmp_path).lm_head.weight.dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


def test_tied_weights_stay_tied(tmp_path):
    model = llama(tie_word_embeddings=True)
    small, _ = vibnet.prune(model, halved(model), X)
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert same(loaded, small)


def test_a_class_that_is_not_there_is_named(tmp_path):
    model = llama()
    small, _ = vibnet.prune(model, halved(model), X)
    small.config.architectures = None
    vibnet.save(small, tmp_path)
    path = tmp_path / "plan.json"
    body = body_of(tmp_path)
    body["config"]["architectures"] = ["NoSuchModel"]
    path.write_text(json.dumps({**body, "digest": vibnet.surgery.plan.digest(body)}))
    with pytest.raises(ArtefactError, match=r"the class NoSuchModel .* Install transformers, or"):
        vibnet.load(tmp_path)
    assert same(vibnet.load(tmp_path, llama()), small)


def test_any_other_model_has_to_be_given(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.ones(2, 3)
    small, _ = vibnet.prune(model, halved(model, x), x)
    vibnet.save(small, tmp_path)
    assert not (tmp_path / CONFIG).exists()
    assert not (tmp_path / INDEX).exists()
    with pytest.raises(ArtefactError, match=r"no model was given.*pass the model"):
        vibnet.load(tmp_path)


def test_a_folder_that_holds_the_whole_model_is_never_written_over(tmp_path):
    model = llama()
    small, _ = vibnet.prune(model, halved(model), X)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ArtefactError, match=r"holds a config\.json that no save wrote.*another"):
        vibnet.save(small, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_of_an_earlier_save_is_written_again(tmp_path):
    model = llama()
    for kept in (4, 2):
        wanted = halved(model)
        wanted.kept["model.layers.0.mlp.gate_proj"] = list(range(kept))
        small, _ = vibnet.prune(model, wanted, X)
        vibnet.save(small, tmp_path)
    assert same(vibnet.load(tmp_path), small)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_tied_model_is_gated_pruned_saved_and_read_by_its_class(tmp_path):
    model = llama(tie_word_embeddings=True)
    gated = vibnet.attach(model, X)
    torch.manual_seed(1)
    with torch.no_grad():
        for site, gate in gated.all_gates():
            gate.mu.copy_(torch.rand(site.size) + 0.5)
            gate.mu[: site.size // 2] = 1e-6
    small, report = vibnet.prune(gated)
    assert report.difference < 1e-5  # its norms round to float32
    assert small.lm_head.weight is small.model.embed_tokens.weight
    assert small.config.hidden_size == 64  # the class's own; the files say what is true
    vibnet.save(small, tmp_path, report)
    assert config_in(tmp_path)["hidden_size"] == 32
    hf = transformers()
    assert same(hf.AutoModelForCausalLM.from_pretrained(tmp_path).eval(), small)
