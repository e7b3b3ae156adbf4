"""Autoregressive priors: every part by those before it alone, masses that sum to one, draws as often as they say."""

import itertools
import math

import pytest
import torch

from pyrovae.programs.priors import AutoregressiveBits, AutoregressiveCode


def scattered(prior, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return prior.double()


def every_code(prior):
    """All codes of a prior, (number of them, *event)."""
    if len(prior().event_shape) == 1:
        return torch.tensor(list(itertools.product([0.0, 1.0], repeat=prior().event_shape[0]))).double()
    parts, classes = prior().event_shape
    return torch.eye(classes).double()[torch.tensor(list(itertools.product(range(classes), repeat=parts)))]


PRIORS = {
    "bits": lambda: AutoregressiveBits(6, hidden=11),
    "one bit": lambda: AutoregressiveBits(1),
    "codes": lambda: AutoregressiveCode(3, num_classes=4, hidden=7),
    "one code": lambda: AutoregressiveCode(1, num_classes=3),
}


@pytest.fixture(params=PRIORS.values(), ids=PRIORS.keys())
def prior(request):
    return scattered(request.param())


def test_the_masses_of_all_codes_sum_to_one(prior):
    assert prior().log_prob(every_code(prior)).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_they_begin_equally_likely():
    prior = AutoregressiveBits(3).double()
    torch.testing.assert_close(prior().log_prob(every_code(prior)).exp(), torch.full((8,), 1 / 8).double())


def test_draws_are_as_often_as_they_are_likely(prior):
    torch.manual_seed(0)
    codes = every_code(prior)
    expected = prior().log_prob(codes).exp()
    drawn = prior().sample((20_000,)).flatten(1)
    found = (drawn[:, None] == codes.flatten(1)).all(-1).double().mean(0)
    assert found.sum().item() == pytest.approx(1)
    assert ((found - expected).abs() <= 5 * (expected * (1 - expected) / 20_000).sqrt() + 1e-4).all()  # 5 s.e.


def test_a_part_goes_by_all_before_it_and_by_none_behind(prior):
    code = prior().sample((20,))
    parts = prior().event_shape[0]
    by_part = torch.autograd.functional.jacobian(lambda z: prior().logits(z).square().sum((0, 2)), code)
    reads = by_part.reshape(parts, 20, parts, -1).abs().sum((1, 3)) > 0
    assert torch.equal(reads, torch.ones(parts, parts).tril(-1).bool())


def test_it_learns_a_law_that_no_independent_code_has():
    """The third bit is the exclusive or of the first two: log 4 nats instead of log 8."""
    torch.manual_seed(0)
    prior = AutoregressiveBits(3)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.05)
    first = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)))
    codes = torch.cat([first, first.sum(-1, keepdim=True) % 2], -1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -prior().log_prob(codes).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(math.log(4), abs=0.02)
