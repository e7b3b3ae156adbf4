"""What a page runs of a VAE: likelihoods and priors are torch's, to rounding."""

import json

import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.apps.explorer.layers import Unreadable
from pyrovae.apps.explorer.live import live
from pyrovae.pairs.context import isolated
from pyrovae.programs import families
from pyrovae.reports.explorer.page import packed

BOX = (-4.0, 4.0, -4.0, 4.0)
LIKELIHOODS = {
    "bernoulli": families.bernoulli(),
    "binomial": families.binomial(9),
    "beta_binomial": families.beta_binomial(9),
    "poisson": families.poisson(),
    "negative_binomial": families.negative_binomial(),
    "categorical": families.categorical(4),
    "continuous_bernoulli": families.continuous_bernoulli(),
    "normal": families.normal(),
    "normal, fixed": families.normal(scale=0.123456789),
    "normal, one scale": families.normal(scale=families.learned(0.3)),
    "normal, scales": families.normal_of_scales(),
    "laplace": families.laplace(),
    "logistic": families.logistic(),
    "student_t": families.student_t(3.5),
    "log_normal": families.log_normal(),
    "gamma": families.gamma(),
    "beta": families.beta(),
}
PRIORS = {
    "standard": pv.priors.StandardNormal(2),
    "learned": pv.priors.LearnedNormal(2),
    "mixture": pv.priors.GaussianMixture(2, num_components=3, spread=2.0, seed=0),
}


def made(family=None, prior=None, shape=(5,), latent=2, encoder=None):
    vae = pv.VAE(
        prior=prior or pv.priors.StandardNormal(latent),
        decoder=pv.Conditional(family or families.bernoulli(), shape, pv.networks.mlp(latent, 6, seed=0)),
        encoder=encoder or pv.Conditional(families.normal(), (latent,), pv.networks.mlp(shape, 6, seed=1)),
    )
    with torch.no_grad():
        for weight in vae.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    return vae


def parts(vae, x=None, latent=2):
    x = torch.zeros(3, 5) if x is None else x
    with isolated(vae.model, vae.guide) as (model, guide, _):
        draws = vae.prior().sample((200,)).numpy().reshape(200, -1)
        return live(model, guide, BOX, x, draws)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_their_means_and_their_draws(name, opened):
    vae = made(LIKELIHOODS[name])
    found = parts(vae).decoder
    torch.manual_seed(0)
    z = torch.tensor([0.7, -1.2])
    with torch.no_grad():
        y = vae.decoder(z)
        x = y.sample((4,))
        expected, mean = y.log_prob(x), y.mean if name != "categorical" else None
    if mean is None:  # of the classes' numbers
        mean = (y.base_dist.probs * torch.arange(4)).sum(-1)
    script = f"""(() => {{
      const seeded = stream(1), one = unpackedAll({json.dumps(packed(found))}), p = family(one.family), r = network(one.layers)({z.tolist()});
      const draws = Array.from({{ length: 3000 }}, () => p.draw(r, seeded));
      const of = (i) => draws.map((x) => x[i]), mean = (v) => v.reduce((a, b) => a + b) / v.length;
      const se = (v) => Math.sqrt(mean(v.map((t) => (t - mean(v)) ** 2)) / v.length);
      return [{x.tolist()}.map((x) => p.log(x, r)), [...p.mean(r)], [0, 1, 2, 3, 4].map((i) => [mean(of(i)), se(of(i))])];
    }})()"""
    log, means, drawn = opened.run(script)
    torch.testing.assert_close(torch.tensor(log), expected, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(torch.tensor(means), mean, rtol=2e-5, atol=2e-5)
    drawn = np.array(drawn)
    assert (np.abs(drawn[:, 0] - mean.numpy()) < 5 * drawn[:, 1] + 1e-9).all()  # 5 s.e., the seed fixed


@pytest.mark.parametrize("name", PRIORS)
def test_priors_that_are_mixtures_of_normals_are_exact(name, opened):
    vae = made(prior=PRIORS[name])
    found = parts(vae).prior
    assert found["kind"] == "mixture"
    z = torch.randn(5, 2)
    log = opened.run(f"{z.tolist()}.map((z) => mixture(unpackedAll({json.dumps(packed(found))})).log(z))")
    torch.testing.assert_close(torch.tensor(log), vae.prior().log_prob(z).detach(), rtol=1e-5, atol=1e-5)


def test_another_prior_is_a_table_or_in_more_dimensions_draws(opened):
    vae = made(prior=pv.priors.Logistic(2))
    found = parts(vae).prior
    z = torch.randn(5, 2)
    log = opened.run(f"{z.tolist()}.map((z) => tabled(unpackedAll({json.dumps(packed(found))})).log(z))")
    torch.testing.assert_close(torch.tensor(log), vae.prior().log_prob(z), rtol=0, atol=1e-3)  # of 161 nodes, by lines
    three = parts(made(prior=pv.priors.Logistic(3), latent=3), latent=3).prior
    assert three["kind"] == "draws" and three["values"] is None and three["draws"].shape == (200, 3)


def test_what_a_page_cannot_run_says_why():
    own = families.Family("normal", lambda s: (s,), lambda d, loc: torch.distributions.Normal(loc, 1.0).to_event(d))
    for family, why in [(own, "one's own, normal"), (families.ordinal(3), r"the likelihood is ordinal\(3\)")]:
        with pytest.raises(Unreadable, match=why):
            parts(made(family))
    vae = made()
    with pytest.raises(Unreadable, match="the decoder is a function"):
        parts(pv.VAE(vae.prior, lambda z: vae.decoder(z), vae.encoder))
    student = pv.Conditional(families.student_t(5), (2,), pv.networks.mlp(5, 6))
    found = parts(made(encoder=student))
    assert found.encoder is None and found.guide is None and "another family, student_t" in found.reason
