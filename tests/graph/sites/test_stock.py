"""Heads of stock attentions stay, and say why; replaced attentions give them up."""

import copy

import pytest
import torch
from laws import law_one
from torch import nn
from tv import torchvision

from vibnet import Plan, attach, load, plan, prune, save
from vibnet.errors import ArtefactError, CaptureError, NoSitesError
from vibnet.graph.sites.stock import replaceable, with_free_heads
from vibnet.layers import Attention

WIDTH, HEADS = 12, 3
TOKENS = torch.randn(2, 5, WIDTH)


class Own(nn.Module):
    """Attention of torch in a model of one's own; `options` of its call."""

    def __init__(self, made=None, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **(made or {}))
        self.hidden, self.last = nn.Linear(WIDTH, 8), nn.Linear(8, 3)
        self.options = options

    def forward(self, x):
        h, _ = self.attention(x, x, x, **self.options)
        return self.last(torch.relu(self.hidden(x + h)))


def encoder():
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
    return nn.Sequential(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, 3)
    )


@pytest.mark.parametrize("need_weights", [True, False])
def test_stock_heads_stay_with_the_reason_and_the_remedy(need_weights):
    found = plan(Own(need_weights=need_weights), TOKENS)
    assert list(found.kept) == ["hidden"]
    assert found.pinned["attention"] == (
        "attention is a MultiheadAttention, which cannot hold fewer heads than its width has for "
        "their size. Put an attention that can in its place, as replace_attention=True does"
    )


@pytest.mark.parametrize("need_weights", [True, False])
def test_replaced_heads_go(need_weights):
    model = Own(need_weights=need_weights)
    report, small, gated = law_one(model, TOKENS, replace_attention=True)
    heads = len(report.plan.kept["attention.q_proj"])
    assert heads < HEADS
    assert isinstance(small.attention, Attention)
    assert small.attention.num_heads == heads
    assert report.replaced == ("attention",)
    assert "attentions of any number of heads: attention" in str(report)
    assert type(model.attention) is nn.MultiheadAttention
    assert report.plan.request.attention
    assert gated.graph.request.attention


def test_replaced_heads_go_a_second_time():
    gated = attach(Own(), TOKENS, replace_attention=True)
    with torch.no_grad():
        gated.gate("attention.q_proj").log_var[0] = 9.0
    small, _ = prune(gated)
    report, again, _ = law_one(small, TOKENS, replace_attention=True)
    assert report.plan.sizes["attention.q_proj"] == HEADS - 1
    assert len(again.attention.q_proj.weight) < len(small.attention.q_proj.weight)


def test_heads_of_torchs_own_encoder_go():
    report, small, _ = law_one(encoder(), TOKENS, replace_attention=True)
    assert {k for k in report.plan.kept if "q_proj" in k} == {
        f"0.layers.{n}.self_attn.q_proj" for n in (0, 1)
    }
    assert small[0].layers[0].self_attn.num_heads < HEADS


def test_weights_that_a_model_gives_out_keep_the_heads_whole():
    class Shows(Own):
        def forward(self, x):
            h, weights = self.attention(x, x, x)
            return self.last(torch.relu(self.hidden(x + h))), weights

    found = plan(Shows(), TOKENS, replace_attention=True)
    assert "mean in attention" in found.pinned["attention.q_proj"]


def test_an_attention_with_a_key_of_its_own_is_not_replaced():
    model = Own({"add_bias_kv": True})
    assert replaceable(model) == []
    with pytest.raises(NoSitesError, match=r"attention: it adds a key and a value of its own"):
        attach(model, TOKENS, replace_attention=True)
    assert "not possible here: it adds a key" in plan(model, TOKENS).pinned["attention"]


def test_a_model_without_a_stock_attention_is_refused():
    with pytest.raises(NoSitesError, match=r"holds no nn\.MultiheadAttention .* Leave it out"):
        attach(nn.Sequential(nn.Linear(4, 6)), torch.randn(2, 4), replace_attention=True)


def test_a_plan_says_that_attentions_are_replaced_and_prunes_a_plain_model():
    model = Own(need_weights=False).eval()
    made = plan(model, TOKENS, replace_attention=True)
    again = Plan.from_json(made.to_json())
    assert again == made
    again.kept["attention.q_proj"][:] = [0, 2]
    small, report = prune(model, again, TOKENS)
    assert small.attention.num_heads == 2
    assert report.difference < 1e-10


def test_a_saved_model_loads_into_the_stock_class(tmp_path):
    model = Own(need_weights=False)
    gated = attach(model, TOKENS, replace_attention=True)
    with torch.no_grad():
        gated.gate("attention.q_proj").log_var[0] = 5
    small, _ = prune(gated.eval())
    save(small, tmp_path)
    again = load(tmp_path, Own(need_weights=False))
    assert again.attention.num_heads == 2
    torch.testing.assert_close(again(TOKENS), small(TOKENS))


def test_a_model_that_is_another_is_not_touched_by_a_load(tmp_path):
    save(prune(attach(Own(), TOKENS, replace_attention=True))[0], tmp_path)
    other = encoder()
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ArtefactError, match="was cut from another model"):
        load(tmp_path, other)
    assert type(other[0].layers[0].self_attn) is nn.MultiheadAttention
    assert other.state_dict().keys() == before.keys()


def test_what_stays_is_shared_with_the_model_and_hooks_do_not_run_twice():
    model = Own()
    copied = with_free_heads(model)
    assert copied.last.weight is model.last.weight
    assert copied.attention.q_proj.weight is not model.attention.in_proj_weight


@torchvision
@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
def test_shifted_windows(name):
    from torchvision.models import swin_transformer as swin

    block = swin.SwinTransformerBlock if name == "swin_t" else swin.SwinTransformerBlockV2
    kind = swin.PatchMerging if name == "swin_t" else swin.PatchMergingV2
    model = swin.SwinTransformer(
        [4, 4],
        12,
        [2, 1],
        [3, 6],
        [4, 4],
        num_classes=5,
        block=block,
        downsample_layer=kind,
        stochastic_depth_prob=0.0,
    )
    images = torch.randn(2, 3, 32, 32)
    reasons = [r for r in plan(model, images).pinned.values() if "replace_attention=True" in r]
    assert len(reasons) == 3
    report, small, _ = law_one(model, images, replace_attention=True)
    assert len(report.plan.kept["features.1.1.attn.qkv"]) < 3
    assert isinstance(small.features[1][1].attn, swin.ShiftedWindowAttention)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.a, self.r = nn.Linear(4, 6), kind(6, 8, batch_first=True, **options)
        self.b = nn.Linear(16 if options.get("bidirectional") else 8, 2)

    def forward(self, x):
        return self.b(self.r(torch.relu(self.a(x)))[0][:, -1])


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_a_recurrent_layer_reads_is_cut_and_its_hidden_units_stay(kind, options):
    model, example = Recurrent(kind, **options), torch.randn(3, 5, 4)
    found = plan(model, example)
    assert "a" in found.kept
    assert "its hidden units feed back into themselves" in found.pinned["r"]
    report, small, _ = law_one(model, example)
    width = len(report.plan.kept["a"])
    assert width < 6
    assert small.r.input_size == small.r.weight_ih_l0.shape[1] == width
    assert small.train()(example.double()).requires_grad


def test_a_saved_recurrent_network_loads(tmp_path):
    example = torch.randn(3, 5, 4)
    gated = attach(Recurrent(nn.LSTM), example)
    with torch.no_grad():
        gated.gate("a").log_var[:2] = 5
    small, _ = prune(gated.eval())
    save(small, tmp_path)
    again = load(tmp_path, Recurrent(nn.LSTM))
    assert again.r.input_size == 4
    torch.testing.assert_close(again(example), small(example))


def test_hooks_of_an_output_layer_that_the_stock_module_never_calls_forbid_a_replacement():
    model = Own(need_weights=False)
    model.attention.out_proj.register_forward_hook(lambda _m, _i, o: o * 3)
    with pytest.raises(NoSitesError, match="its out_proj has hooks or parametrisations"):
        attach(model, TOKENS, replace_attention=True)


def test_weights_that_two_attentions_share_forbid_a_replacement():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in "ab")
            self.b.in_proj_weight = self.a.in_proj_weight
            self.last = nn.Linear(WIDTH, 2)

        def forward(self, x):
            x = x + self.a(x, x, x)[0]
            return self.last(x + self.b(x, x, x)[0])

    with pytest.raises(NoSitesError, match="its weights are those of another layer too"):
        attach(Two(), TOKENS, replace_attention=True)


def test_an_attention_that_two_modules_share_stays_one():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            one = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
            self.first, self.second = nn.ModuleDict({"a": one}), nn.ModuleDict({"a": one})
            self.last = nn.Linear(WIDTH, 2)

        def forward(self, x):
            x = x + self.first["a"](x, x, x)[0]
            return self.last(x + self.second["a"](x, x, x)[0])

    copied = with_free_heads(Shared())
    assert copied.first["a"] is copied.second["a"]


def test_a_model_that_is_an_attention_says_what_to_do():
    with pytest.raises(NoSitesError, match="it is the model itself; put it into a module"):
        with_free_heads(nn.MultiheadAttention(WIDTH, HEADS))


def test_an_encoder_that_packs_padded_tokens_is_refused_by_name():
    class Padded(nn.Module):
        def __init__(self, nested):
            super().__init__()
            layer = nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True)
            self.e = nn.TransformerEncoder(layer, 1, enable_nested_tensor=nested)
            self.last = nn.Linear(WIDTH, 2)

        def forward(self, x, hidden):
            return self.last(self.e(x, src_key_padding_mask=hidden))

    hidden = torch.zeros(2, 5, dtype=torch.bool)
    hidden[0, 3:] = True
    with pytest.raises(CaptureError, match=r"e packs padded tokens .* enable_nested_tensor=False"):
        attach(Padded(True), (TOKENS, hidden))
    assert attach(Padded(False), (TOKENS, hidden)).gates
