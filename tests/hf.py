"""The transformers library, where it is installed, and a small Llama with its plan."""

import json
from dataclasses import replace

import pytest
import torch
from schemas import declare

import vibnet
from vibnet.surgery.pretrained import CONFIG

X = torch.randint(0, 100, (2, 7), generator=torch.Generator().manual_seed(0))


def transformers():
    """The library; a test that asks for it is skipped without it."""
    pytest.importorskip("transformers")
    declare()
    return pytest.importorskip("transformers")


def llama(groups=2, **more):
    """A Llama small enough for a test, its weights no zeros and no ones."""
    hf = transformers()
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 8, "num_key_value_heads": groups}
    config = hf.LlamaConfig(**sizes, **heads, vocab_size=100, use_cache=False, **more)
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(config).eval()


def halved(model, example=X):
    """Every site without the first half of its units."""
    found = vibnet.plan(model, example)
    return replace(found, kept={k: list(range(n // 2, n)) for k, n in found.sizes.items()})


def config_in(folder):
    return json.loads((folder / CONFIG).read_text())


def same(model, small):
    with torch.no_grad():
        return torch.equal(model(X).logits, small.eval()(X).logits)
