"""What a fit logs: the true ELBO in nats per datum, whatever is optimized."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.small import make_data, make_vae
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.training.step import Step


def pairs_of_objectives():
    return {
        "Trace_ELBO": Trace_ELBO(),
        "Trace_ELBO, 3 particles": Trace_ELBO(num_particles=3),
        "vectorized": Trace_ELBO(num_particles=3, vectorize_particles=True),
        "mean field": TraceMeanField_ELBO(),
        "IWAE": RenyiELBO(alpha=0, num_particles=5, vectorize_particles=True),
        "enumerating": TraceEnum_ELBO(strict_enumeration_warning=False, max_plate_nesting=1),
    }


@pytest.fixture(scope="module")
def report():
    """The account of a pair that a rate of nothing leaves as it is."""
    vae = make_vae()
    return pv.evaluate(vae.model, vae.guide, make_data(400), num_particles=500)


@pytest.mark.parametrize("name", list(pairs_of_objectives()))
def test_the_logged_elbo_is_the_true_one_under_any_objective(name, report):
    vae, x = make_vae(), make_data(400)
    objective = pairs_of_objectives()[name]
    fitted = pv.fit(
        vae.model, vae.guide, x, objective=objective, epochs=1, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.0)
    )
    row = fitted.history[0]
    for quantity in ("elbo", "reconstruction", "kl_prior"):
        se = getattr(report, f"mc_se_{quantity}").square().sum().sqrt() * math.sqrt(500) / 400
        assert abs(row[quantity] - getattr(report, quantity).mean()) < 5 * se  # one draw for each datum
    assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl_prior"], abs=1e-9)
    assert "_get_trace" not in vars(objective)  # a copy of it records
    if name == "IWAE":
        assert row["objective"] > row["elbo"]


def test_a_rescaling_plate_logs_nats_per_datum():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)

        def model(self, x):
            with pyro.plate("data", 300, subsample=x):
                z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([len(x), 3]).to_event(1), obs=x)

        def guide(self, x):
            pyro.module("pair", self)
            with pyro.plate("data", 300, subsample=x):
                pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))

    pair, x = Pair(), torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    row = pv.fit(
        pair.model, pair.guide, x, epochs=1, batch_size=60, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.0)
    ).history[0]
    assert row["objective"] == pytest.approx(row["elbo"], rel=1e-5)


def test_no_trace_is_kept_from_step_to_step():
    vae, x = make_vae(), make_data(20)
    with pyro.get_param_store().scope():
        step = Step(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO(num_particles=3))
        step.prime([(x,)], [vae])
        for _ in range(2):
            step.step(x)
            assert not step.recorded.seen
