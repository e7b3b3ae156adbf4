"""The fused sum over an event against torch's elements in float64, and as a distribution like any other."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.programs.distributions import event_sums
from pyrovae.programs.distributions.exponential import Bernoulli, Binomial

TRIALS = {"one": 1, "sixteen": 16, "three": 3}


def built(count, logits):
    return Bernoulli(logits=logits) if count == 1 else Binomial(count, logits)


def reference(count, logits, value):
    """torch's own elements, summed in float64 over the last dimension."""
    return dist.Binomial(count, logits=logits.double()).log_prob(value.double()).sum(-1)


def drawn(count, *shape, scale=3.0, seed=0):
    noise = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*shape, generator=noise)
    return logits, torch.randint(count + 1, shape[-2:], generator=noise).float()


@pytest.mark.parametrize("size", [1, 7, 64, 101, 784, 3072])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("count", TRIALS.values(), ids=TRIALS)
def test_as_exact_as_summing_the_elements(count, scale, size):
    logits, value = drawn(count, 9, 11, size, scale=scale)
    one = built(count, logits)
    exact = reference(count, logits, value)
    error = (one.to_event(1).log_prob(value) - exact).abs().max()
    # float32 keeps 24 bits of the largest partial sum, n times the sum of softplus(|logit|) at most
    largest = (count * torch.nn.functional.softplus(logits.abs()).double().sum(-1)).max()
    assert error <= 4 * torch.finfo(torch.float32).eps * largest


@pytest.mark.parametrize("count", TRIALS.values(), ids=TRIALS)
def test_doubles_keep_their_digits(count):
    logits, value = drawn(count, 4, 5, 784)
    fused = built(count, logits.double()).to_event(1).log_prob(value)
    torch.testing.assert_close(fused, reference(count, logits, value), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_no_product_overflows(dtype):
    logits = torch.zeros(3, 4096, dtype=dtype)  # every factor is 2, the largest there is
    fused = Bernoulli(logits=logits).to_event(1).log_prob(torch.zeros(4096))
    assert fused.isfinite().all()
    torch.testing.assert_close(fused.double() / 4096, -torch.full((3,), 2.0).double().log(), rtol=1e-2, atol=0)


def test_nothing_saturates():
    logits = torch.tensor([[500.0, -500.0, 1e6, 0.0]])
    sure = Bernoulli(logits=logits).to_event(1)
    torch.testing.assert_close(sure.log_prob(torch.tensor([1.0, 0.0, 1.0, 1.0])), torch.tensor([0.5]).log())
    assert sure.log_prob(torch.tensor([0.0, 0.0, 1.0, 1.0])) == pytest.approx(-500 - 0.6931, abs=1e-3)


def test_undefined_logits_spoil_their_own_event_alone():
    logits, value = drawn(1, 6, 5, 12)
    logits[2, 3, 4] = torch.nan
    with pyro.validation_enabled(False):
        bad = Bernoulli(logits=logits).to_event(1).log_prob(value).isnan()
    assert bad.sum() == 1 and bad[2, 3]


SHAPES = {  # batch of the logits, of the value, dimensions of an event
    "one event": ((), (), (6,)),
    "particles": ((8, 5), (5,), (6,)),
    "images": ((8, 5), (5,), (4, 6)),
    "as many": ((8, 5), (8, 5), (6,)),
    "samples": ((5,), (8, 5), (6,)),
    "each its own": ((8, 1), (1, 5), (6,)),
    "one datum": ((8, 1), (1,), (6,)),
    "three deep": ((3, 8, 5), (8, 5), (2, 3, 2)),
}


@pytest.mark.parametrize("at_once", [1, 70, 2**17])
@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("count", TRIALS.values(), ids=TRIALS)
def test_shapes_broadcast_as_the_elements_do(monkeypatch, count, case, at_once):
    monkeypatch.setattr(event_sums, "IN_CACHE", at_once)
    batch, of_value, event = case
    logits = torch.randn(*batch, *event, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    value = torch.randint(count + 1, (*of_value, *event), generator=torch.Generator().manual_seed(2)).double()
    one, dims = built(count, logits), len(event)
    expected = one.log_prob(value).sum(tuple(range(-dims, 0)))
    torch.testing.assert_close(one.to_event(dims).log_prob(value), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_data_of_any_type(dtype):
    logits, value = drawn(1, 3, 5, 12)
    event = Bernoulli(logits=logits).to_event(1)
    assert torch.equal(event.log_prob(value.to(dtype)), event.log_prob(value))


@pytest.mark.parametrize("count", TRIALS.values(), ids=TRIALS)
def test_gradients_are_those_of_the_elements(count):
    logits, value = drawn(count, 4, 5, 30)
    logits.requires_grad_()
    one = built(count, logits)
    fused, plain = one.to_event(1).log_prob(value), one.log_prob(value).sum(-1)
    assert torch.equal(fused, plain)
    (gradient,) = torch.autograd.grad(fused.sum(), logits)
    torch.testing.assert_close(gradient, value - count * logits.sigmoid())
    with torch.no_grad():
        torch.testing.assert_close(one.to_event(1).log_prob(value), plain)


def test_the_logits_stay_as_they_are():
    logits, value = drawn(16, 4, 5, 30)
    before = logits.clone(), value.clone()
    Binomial(16, logits).to_event(1).log_prob(value)
    assert torch.equal(logits, before[0]) and torch.equal(value, before[1])


@pytest.mark.parametrize("count", TRIALS.values(), ids=TRIALS)
def test_a_graph_gives_the_same_in_one_piece(monkeypatch, count):
    monkeypatch.setattr(event_sums, "IN_CACHE", 200)
    logits, value = drawn(count, 40, 5, 30)
    with pyro.validation_enabled(False):
        run = make_fx(lambda logits, value: built(count, logits).to_event(1).log_prob(value))(logits, value)
    assert sum("prod" in str(node.target) for node in run.graph.nodes) == 1
    torch.testing.assert_close(run(logits, value), built(count, logits).to_event(1).log_prob(value))


@pytest.mark.parametrize("count", TRIALS.values(), ids=TRIALS)
class TestAsADistribution:
    def test_expansion(self, count):
        logits, value = drawn(count, 1, 5, 30)
        wide = built(count, logits).to_event(1).expand((7, 5))
        assert isinstance(wide, event_sums.Event) and wide.batch_shape == (7, 5) and wide.event_shape == (30,)
        torch.testing.assert_close(wide.log_prob(value), built(count, logits).to_event(1).log_prob(value).expand(7, 5))

    def test_event_dimensions_come_and_go(self, count):
        one = built(count, drawn(count, 4, 5, 30)[0])
        assert one.to_event(0) is one and one.to_event(2).to_event(-2) is one
        assert isinstance(one.to_event(1).to_event(1), event_sums.Event)
        assert one.to_event(1).to_event(1).event_shape == one.to_event(2).event_shape == (5, 30)
        assert one.to_event().event_shape == (4, 5, 30)
        with pytest.raises(ValueError, match="Cannot remove event dimensions"):
            one.to_event(-1)

    def test_masks(self, count):
        logits, value = drawn(count, 4, 5, 30)
        one, kept = built(count, logits), torch.arange(5) != 2
        whole, masked = one.to_event(1).log_prob(value), one.to_event(1).mask(kept).log_prob(value)
        assert torch.equal(masked, torch.where(kept, whole, 0.0))
        pixels = torch.arange(30) < 10
        some = one.mask(pixels).to_event(1).log_prob(value)
        torch.testing.assert_close(some, one.log_prob(value)[..., :10].sum(-1))

    def test_values_outside_the_support_are_refused(self, count):
        with pyro.validation_enabled(True), pytest.raises(ValueError, match="within the support"):
            built(count, torch.zeros(3)).to_event(1).log_prob(torch.full((3,), count + 1.0))


def test_the_divergence_of_two_events():
    p, q = (Bernoulli(logits=drawn(1, 4, 5, 30, seed=seed)[0]) for seed in (0, 1))
    kl = torch.distributions.kl_divergence
    torch.testing.assert_close(kl(p.to_event(1), q.to_event(1)), kl(p, q).sum(-1))
