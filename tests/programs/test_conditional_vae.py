"""p(x | y): the conditional pair against quadrature, with fixed and with learned priors, labels and outlines."""

import pyro.distributions as dist
import pytest
import torch
from examples import labelled

import pyrovae as pv
from pyrovae.base.errors import InputError


def test_given_labels_it_has_the_evidence_of_x_given_y():
    x, y = labelled.draw(5)
    vae = pv.ConditionalVAE(labelled.Standard(), labelled.decoder, labelled.encoder)
    report = pv.evaluate(vae.model, vae.guide, (x, y), num_particles=50, progress=False)
    expected = labelled.log_joint(x).gather(1, y[:, None])[:, 0] - labelled.PROBS.log()[y]
    torch.testing.assert_close(report.log_evidence, expected, rtol=0, atol=1e-10)


def test_a_prior_that_reads_y_is_given_it():
    def prior(y):
        return dist.Normal(labelled.MEANS[y][:, :2], 1.0).to_event(1)

    x, y = labelled.draw(5)
    vae = pv.ConditionalVAE(prior, labelled.decoder, labelled.encoder)
    terms = pv.log_terms(vae.model, vae.guide, x, y, num_particles=3)
    fixed = pv.ConditionalVAE(labelled.Standard(), labelled.decoder, labelled.encoder)
    z = pv.sample(vae.model, x, y, num_samples=4000).values["z"]
    assert terms.log_prior.shape == (3, 5)
    at = z[torch.arange(4000) % 5 == 0] - labelled.MEANS[y[0], :2]
    assert (at.mean(0).abs() < 4 / 800**0.5).all()  # 4 standard errors of 800 draws of unit variance
    assert pv.log_terms(fixed.model, fixed.guide, x, y, num_particles=3).log_prior.shape == (3, 5)


@pytest.mark.parametrize("learned", [False, True])
def test_images_given_an_outline(learned):
    x = pv.data.load("digits").train.x[:40]
    y = pv.data.outline(x, threshold=4)
    assert y.shape == x.shape and set(y.unique().tolist()) == {0.0, 1.0}
    of_y = pv.networks.beside([(8, 8)], pv.networks.mlp(64, 16, seed=2))
    vae = pv.ConditionalVAE(
        prior=pv.Conditional(pv.families.normal(), 2, of_y) if learned else pv.priors.StandardNormal(2),
        decoder=pv.Conditional(
            pv.families.binomial(16), (8, 8), pv.networks.beside([2, (8, 8)], pv.networks.mlp(66, 16, seed=0))
        ),
        encoder=pv.Conditional(
            pv.families.normal(), 2, pv.networks.beside([(8, 8), (8, 8)], pv.networks.mlp(128, 16, seed=1))
        ),
    )
    fitted = pv.fit(vae.model, vae.guide, (x, y), epochs=3, progress=False)
    assert fitted.history[-1]["elbo"] > fitted.history[0]["elbo"]
    assert pv.sample(fitted.model, x[:1], y[:1], num_samples=3).values["x"].shape == (3, 8, 8)


def test_a_label_outside_its_classes_is_refused_in_one_line():
    label = pv.networks.OneHot(3)
    vae = pv.ConditionalVAE(
        prior=pv.priors.StandardNormal(2),
        decoder=pv.Conditional(pv.families.normal(), 4, pv.networks.beside([2, label], pv.networks.mlp(5))),
        encoder=pv.Conditional(pv.families.normal(), 2, pv.networks.beside([4, label], pv.networks.mlp(7))),
    )
    with pytest.raises(InputError, match=r"classes 0\.\.2, got 3"):
        pv.fit(vae.model, vae.guide, (torch.zeros(5, 4), torch.tensor([0, 1, 2, 3, 0])), epochs=1, progress=False)
