"""What data would be under another class: against the closed form, and what is refused."""

import pyro.distributions as dist
import pytest
import torch
from examples import labelled

import pyrovae as pv
from pyrovae.base.errors import InputError, UntrustedPosterior
from pyrovae.programs.guides.inputs import TableRows

X, Y = labelled.draw(6)
VAE = pv.ConditionalVAE(labelled.Standard(), labelled.decoder, labelled.encoder)


def test_the_latents_are_kept_and_the_class_is_changed():
    found = pv.counterfactual(VAE.model, VAE.guide, (X, Y), y=2, num_draws=400, num_particles=800)
    torch.testing.assert_close(found.effect()["x"], labelled.MEANS[2] - labelled.MEANS[Y])  # the same z in both
    exact = labelled.encoder(X, Y)
    of_z = exact.mean @ labelled.LOADINGS.T + labelled.MEANS[2]
    sd = (labelled.LOADINGS @ exact.covariance_matrix @ labelled.LOADINGS.T).diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((found.means["x"].mean(0) - of_z).abs() < 4 * sd * (1 / 400 + 1 / 800) ** 0.5).all()  # 4 standard errors
    torch.testing.assert_close(found.ess, torch.full((6,), 800.0).double())  # the guide is exact
    assert found.fraction_unreliable == 0 and (found.pareto_k == -torch.inf).all()
    assert found.values["x"].shape == found.factual["x"].shape == (400, 6, 4)


def test_under_its_own_class_nothing_changes():
    found = pv.counterfactual(VAE.model, VAE.guide, (X, Y), y=Y, num_draws=3, num_particles=20)
    assert found.effect()["x"].abs().max() == 0


def test_a_poor_guide_is_weighed_and_the_ess_says_so():
    poor = pv.ConditionalVAE(
        labelled.Standard(),
        labelled.decoder,
        lambda x, y: dist.Normal(torch.zeros(len(x), 2).double(), 1.5).to_event(1),
    )
    found = pv.counterfactual(poor.model, poor.guide, (X, Y), y=0, num_draws=500, num_particles=20_000)
    exact = labelled.encoder(X, Y)
    of_z = exact.mean @ labelled.LOADINGS.T + labelled.MEANS[0]
    sd = (labelled.LOADINGS @ exact.covariance_matrix @ labelled.LOADINGS.T).diagonal(dim1=-2, dim2=-1).sqrt()
    error = sd * (1 / 500 + 1 / found.ess[:, None]) ** 0.5
    assert ((found.means["x"].mean(0) - of_z).abs() < 4 * error).all()  # 4 standard errors
    assert (found.ess < 10_000).all()


def test_draws_of_a_guide_that_misses_the_posterior_are_warned_of():
    def narrow(x, y):
        exact = labelled.encoder(x, y)
        return dist.MultivariateNormal(exact.mean + 3.0, 0.05 * exact.covariance_matrix)

    missed = pv.ConditionalVAE(labelled.Standard(), labelled.decoder, narrow)
    with pytest.warns(UntrustedPosterior, match="nothing vouches for the draws of 100% of 6 data: raise num_particles"):
        found = pv.counterfactual(missed.model, missed.guide, (X, Y), y=0, num_draws=4, num_particles=500)
    assert found.unreliable.all() and (found.pareto_k > 0.7).all()
    assert "unreliable draws (k-hat above its threshold or undefined): 100.0% of data" in found.summary()
    assert found.to_dict()["fraction_unreliable"] == 1


@pytest.mark.filterwarnings("ignore::pyrovae.base.errors.UntrustedPosterior")  # of networks that were not fitted
def test_a_covariate_of_a_table():
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    covariates = torch.randn(40, 1, generator=torch.Generator().manual_seed(1))
    read = TableRows([("real", 0)] * 3, rows, torch.zeros(3) > 0)
    beside = TableRows([("real", 0)], covariates, torch.zeros(1) > 0)
    vae = pv.TableVAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.normal(), 3, pv.networks.mlp(3, 8, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.mlp(4, 8, seed=1)),
        read=read,
        read_covariates=beside,
    )
    found = pv.counterfactual(vae.model, vae.guide, (rows, covariates), y=torch.tensor([2.0]), num_draws=4)
    assert found.effect()["x"].shape == (40, 3) and found.effect()["x"].abs().max() > 0
    assert found.summary().startswith("user's tensor")


@pytest.mark.parametrize(
    ("data", "y", "match"),
    [
        ((X,), 1, r"the data are one tensor: give \(x, y\)"),
        ((X, Y), torch.tensor([0, 1]), r"\(6,\) in the data, \(2,\)"),
    ],
)
def test_what_cannot_be_changed_is_refused(data, y, match):
    with pytest.raises(InputError, match=match):
        pv.counterfactual(VAE.model, VAE.guide, data, y=y)
