"""The ELBO with discrete latents summed out: that of Pyro's enumeration, in value and gradient, and of plain draws."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import labelled
from pyro.infer import TraceEnum_ELBO, config_enumerate

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import own_scope

X = torch.randint(0, 17, (12, 8, 8), generator=torch.Generator().manual_seed(0)).float()
Y = torch.where(torch.arange(12) < 4, torch.arange(12) % 10, -1)


def loss_and_gradients(objective, vae, guide):
    with own_scope(vae.model, guide) as (model, guide, _), pyro.validation_enabled(False):
        vae.zero_grad()
        objective.loss(model, guide, X, Y)  # where a plate is guessed
        pyro.set_rng_seed(3)
        loss = objective.differentiable_loss(model, guide, X, Y)
        loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in vae.parameters()]


def test_it_is_pyros_enumeration_at_the_same_noise():
    vae = labelled.networks()
    ours, gradients = loss_and_gradients(pv.objectives.SummedELBO(), vae, vae.guide)
    theirs, of_pyro = loss_and_gradients(TraceEnum_ELBO(max_plate_nesting=1), vae, config_enumerate(vae.guide))
    assert abs(ours / theirs - 1) < 1e-6
    for one, other in zip(gradients, of_pyro, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("vectorize", [True, False])
def test_under_the_exact_guide_it_is_the_evidence(vectorize):
    vae, (x, y) = labelled.exact_pair(), labelled.draw(5)
    y[2:] = -1
    joint = labelled.log_joint(x)
    expected = joint.gather(1, y.clamp_min(0)[:, None])[:2].sum() + joint.logsumexp(1)[2:].sum()
    bound = pv.objectives.SummedELBO(2, vectorize_particles=vectorize).bound(vae.model, vae.guide, x, y)
    assert abs(bound.loss + expected) < 1e-9
    assert abs(bound.reconstruction - bound.kl_prior - expected) < 1e-9


def test_history_holds_the_true_elbo():
    """What is logged by the sum is on average what is logged of plain draws."""
    vae = labelled.networks()
    with own_scope(vae.model, vae.guide) as (model, guide, _), torch.no_grad():
        pyro.set_rng_seed(0)
        summed = pv.objectives.SummedELBO(200).bound(model, guide, X, Y)
        drawn = [pv.objectives.SampledELBO(200).bound(model, guide, X, Y) for _ in range(8)]
    for name in ("reconstruction", "kl_prior"):
        found = torch.stack([getattr(one, name) for one in drawn])
        error = found.std() * (1 / 8 + 1) ** 0.5  # the sum has no more noise than one of them
        assert abs(getattr(summed, name) - found.mean()) < 4 * error  # 4 standard errors


def test_a_fit_by_pyros_enumeration_logs_the_true_elbo():
    vae = labelled.networks()
    fitted = pv.fit(
        vae.model,
        config_enumerate(vae.guide),
        (X, Y),
        objective=TraceEnum_ELBO(max_plate_nesting=1),
        epochs=3,
        progress=False,
    )
    assert all(abs(row["elbo"] - row["objective"]) < 0.05 * abs(row["elbo"]) for row in fitted.history)


def test_continuous_draws_without_gradients_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.cos(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(0.0 * x, pyro.param("concentration", torch.tensor(1.0))))

    with own_scope(model, guide) as (p, q, _), pytest.raises(InputError, match="'z' of the guide is drawn without"):
        pv.objectives.SummedELBO().bound(p, q, torch.zeros(3))
