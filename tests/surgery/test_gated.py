import copy
from datetime import timedelta

import pytest
import torch
from networks import NETWORKS, call, tensors
from torch import nn
from torch.utils.checkpoint import checkpoint

from vibnet import attach, penalty
from vibnet.errors import ConfigError


class TwoReaders(nn.Module):
    """Two heads read the same units; with the identity as weights they show what they read."""

    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = (nn.Linear(5, 5, bias=False) for _ in range(3))
        with torch.no_grad():
            for layer in (self.body, self.a, self.b):
                layer.weight.copy_(torch.eye(5))

    def forward(self, x):
        h = self.body(x)
        return self.a(h), self.b(h)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 2)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            if self.reentrant is None or not self.training:
                x = block(x).relu()
            else:
                x = checkpoint(lambda y, b=block: b(y).relu(), x, use_reentrant=self.reentrant)
        return self.head(x)


def noisy(gated, log_var=-1.0):
    with torch.no_grad():
        for _, gate in gated.all_gates():
            gate.log_var.fill_(log_var)
    return gated


def two_readers():
    return noisy(attach(TwoReaders(), torch.ones(4, 5)))


def test_all_readers_of_a_unit_see_the_same_multiplier():
    a, b = two_readers().train()(torch.ones(64, 5))
    assert torch.equal(a, b)
    assert a.std() > 0.1


def test_every_example_unit_and_forward_has_its_own_draw():
    gated = two_readers().train()
    a, _ = gated(torch.ones(64, 5))
    again, _ = gated(torch.ones(64, 5))
    assert len(a.unique()) == a.numel()
    assert not (a == again).any()


def test_draws_have_the_mean_and_the_spread_of_their_gates():
    gated = two_readers().train()
    (gate,) = [g for _, g in gated.all_gates()]
    with torch.no_grad():
        gate.mu.copy_(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0]))
        gate.log_var.copy_(torch.tensor([-4.0, -2.0, 0.0, 1.0, -1.0]))
        torch.manual_seed(0)
        z, _ = gated(torch.ones(20_000, 5))
    sigma = torch.exp(0.5 * gate.log_var.detach())
    assert ((z.mean(0) - gate.mu).abs() < 5 * sigma / 20_000**0.5).all()
    assert ((z.std(0) / sigma - 1).abs() < 0.05).all()


def test_evaluation_multiplies_kept_units_by_their_mean_and_the_others_by_zero():
    gated = two_readers().eval()
    (gate,) = [g for _, g in gated.all_gates()]
    with torch.no_grad():
        gate.mu.copy_(torch.tensor([2.0, -3.0, 0.1, 1.5, 0.5]))
        gate.log_var.fill_(0.0)
    expected = torch.tensor([2.0, -3.0, 0.0, 1.5, 0.0]).expand(4, 5)
    for out in gated(torch.ones(4, 5)):
        assert torch.equal(out, expected)
    assert gated.kept().tolist() == [True, True, False, True, False]


def test_a_site_never_closes_whole():
    gated = noisy(two_readers(), 9.0).eval()
    (gate,) = [g for _, g in gated.all_gates()]
    best = int(gate.mu.argmax())
    out, _ = gated(torch.ones(1, 5))
    assert out[0].nonzero().flatten().tolist() == [best]


def test_a_ratio_that_is_no_number_is_refused():
    gated = two_readers().eval()
    next(gated.gates.parameters()).data[0] = float("nan")
    with pytest.raises(ConfigError, match=r"not a number. Training diverged"):
        gated(torch.ones(1, 5))


def test_gates_are_found_by_the_names_of_their_sites():
    gated = attach(*NETWORKS["cnn"](0))
    for site, gate in gated.all_gates():
        assert gated.gate(site.name) is gate
        assert len(gate.mu) == site.size
    with pytest.raises(ConfigError, match=r"there is no gate 'nowhere'. The gated sites are"):
        gated.gate("nowhere")


def test_the_model_inside_is_not_to_be_called_alone():
    gated = two_readers()
    with pytest.raises(ConfigError, match=r"Call the gated model"):
        gated.model(torch.ones(4, 5))


def test_a_copy_has_gates_of_its_own():
    gated = two_readers()
    gated(torch.ones(2, 5))
    copied = copy.deepcopy(gated)
    with torch.no_grad():
        for g in copied.gates.values():
            g.mu.zero_()
            g.log_var.fill_(-9)
            g.mu[0] = 1
    x = torch.ones(3, 5)
    shut, whole = copied.eval()(x)[0], gated.eval()(x)[0]
    assert not shut[:, 1:].any()
    assert whole.all()
    torch.manual_seed(3)
    noise = copied.train()(x)[0]
    assert torch.allclose(noise[:, 1:], torch.zeros(3, 4), atol=0.1)
    assert copied.places[0].draw is not gated.places[0].draw


def test_a_closed_copy_leaves_the_training_of_the_original_alone():
    gated = two_readers().train()
    x = torch.ones(3, 5)
    torch.manual_seed(1)
    before = gated(x)[0]
    copied = copy.deepcopy(gated)
    next(copied.gates.values().__iter__()).mu.data.zero_()
    copied(x)
    torch.manual_seed(1)
    assert torch.equal(gated(x)[0], before)


def gradients(reentrant, forwards=1):
    torch.manual_seed(0)
    gated = noisy(attach(Checkpointed(reentrant), torch.randn(4, 6))).double().train()
    torch.manual_seed(1)
    inputs = [torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(forwards)]
    torch.manual_seed(2)
    outputs = [gated(x) for x in inputs]
    sum(y.square().sum() for y in outputs).backward()
    return {k: p.grad for k, p in gated.named_parameters()}


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_changes_no_gradient(reentrant):
    plain, checkpointed = gradients(None), gradients(reentrant)
    assert plain.keys() == checkpointed.keys()
    for name, grad in plain.items():
        assert grad.abs().max() > 0, name
        torch.testing.assert_close(checkpointed[name], grad, msg=name)


@pytest.mark.parametrize("reentrant", [False, True])
def test_two_forwards_before_one_backward_keep_their_own_draws(reentrant):
    plain, checkpointed = gradients(None, 2), gradients(reentrant, 2)
    for name, grad in plain.items():
        torch.testing.assert_close(checkpointed[name], grad, msg=name)


def step(gated, x, run):
    torch.manual_seed(5)
    loss = run(x).square().mean() + penalty(gated, 1e-3)
    loss.backward()
    return loss.detach(), [p.grad for p in gated.parameters()]


def test_a_compiled_step_is_the_eager_one():
    torch.manual_seed(0)
    gated = noisy(attach(Checkpointed(None), torch.randn(4, 6))).train()
    twin = copy.deepcopy(gated)
    x = torch.randn(4, 6)
    loss, grads = step(gated, x, gated)
    other, compiled = step(twin, x, torch.compile(twin, backend="eager"))
    torch.testing.assert_close(loss, other)
    for a, b in zip(grads, compiled, strict=True):
        torch.testing.assert_close(a, b)


def test_a_step_under_autocast_has_finite_gradients():
    model, example = NETWORKS["cnn"](0)
    gated = attach(model, example).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = call(gated, example)
    (sum(y.float().square().mean() for y in tensors(out)) + penalty(gated, 1e-3)).backward()
    for _, gate in gated.all_gates():
        assert gate.mu.dtype == torch.float32
        for p in (gate.mu, gate.log_var):
            assert torch.isfinite(p.grad).all()
            assert p.grad.any()
    assert all(torch.isfinite(p.grad).all() for p in gated.model.parameters())


@pytest.mark.parametrize("name", ["cnn", "unet", "tied_module", "recurrent", "chunk_gate"])
def test_open_gates_without_noise_change_no_answer(name):
    model, example = NETWORKS[name](0)
    gated = attach(model.double().eval(), tuple(x.double() for x in example))
    for _, gate in gated.all_gates():
        gate.mu.data.fill_(1)
    example = tuple(x.double() for x in example)
    with torch.no_grad():
        for a, b in zip(tensors(model(*example)), tensors(gated(*example)), strict=True):
            assert torch.equal(a, b)


def _worker(rank, folder):
    import torch.distributed as dist

    store = dist.FileStore(f"{folder}/store", 2)
    patience = timedelta(seconds=60)  # a process left alone fails instead of waiting for ever
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=patience)
    torch.manual_seed(0)
    gated = noisy(attach(Checkpointed(None), torch.randn(4, 6))).train()
    wrapped = nn.parallel.DistributedDataParallel(gated)
    torch.manual_seed(10 + rank)
    (wrapped(torch.randn(4, 6)).square().mean() + penalty(wrapped, 1e-3)).backward()
    torch.save([p.grad for p in gated.parameters()], f"{folder}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


def test_distributed_training_gives_every_process_the_same_gradients(tmp_path):
    torch.multiprocessing.spawn(_worker, (str(tmp_path),), 2)
    a, b = (torch.load(tmp_path / str(rank)) for rank in range(2))
    assert len(a) > 6
    assert all(torch.equal(x, y) and x.any() for x, y in zip(a, b, strict=True))
