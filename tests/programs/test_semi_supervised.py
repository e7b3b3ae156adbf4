"""The semi-supervised pair: log p(x, y) where there is a label, log p(x) where there is none, by brute force."""

import pyro.distributions as dist
import pytest
import torch
from examples import labelled

import pyrovae as pv
from pyrovae.base.errors import InputError

X, Y = labelled.draw(6)
SOME = torch.where(torch.tensor([True, False, True, False, False, False]), Y, -1)


def exact():
    joint = labelled.log_joint(X)
    return torch.where(SOME >= 0, joint.gather(1, Y[:, None])[:, 0], joint.logsumexp(1))


def test_under_the_exact_guide_every_weight_is_the_evidence():
    vae = labelled.exact_pair()
    log_weight = pv.log_terms(vae.model, vae.guide, X, SOME, num_particles=20).log_weight
    torch.testing.assert_close(log_weight, exact().expand(20, -1), rtol=0, atol=1e-10)


def test_a_labelled_datum_has_the_evidence_of_both_and_another_that_with_y_summed_out():
    vae = labelled.exact_pair(lambda x: dist.Categorical(logits=torch.zeros(len(x), 3).double()))
    report = pv.evaluate(vae.model, vae.guide, (X, SOME), num_particles=500, progress=False)
    off = (report.log_evidence - exact()).abs()
    assert (off < 4 * report.mc_se_log_evidence + 1e-9).all()  # 4 standard errors
    assert (report.mc_se_log_evidence[SOME >= 0] < 1e-9).all()  # q(y | x) has no part in these


def test_the_evidence_is_that_of_brute_force_over_the_classes():
    """log p(x) by one evaluation with y summed out, and by the sum of p(x, y) from three evaluations with labels."""
    vae = labelled.networks(3, images=(2, 2), latent=2)
    x = torch.randint(0, 16, (4, 2, 2), generator=torch.Generator().manual_seed(1)).float()
    of = [(x, torch.full((4,), y)) for y in (-1, 0, 1, 2)]
    whole, *parts = (pv.evaluate(vae.model, vae.guide, one, num_particles=4000, progress=False) for one in of)
    joint = torch.stack([part.log_evidence for part in parts])
    errors = torch.stack([part.mc_se_log_evidence for part in parts])
    error = (whole.mc_se_log_evidence.square() + (joint.softmax(0) * errors).square().sum(0)).sqrt()
    assert ((whole.log_evidence - joint.logsumexp(0)).abs() < 4 * error + 1e-4).all()  # 4 standard errors
    assert (error < 0.05).all()


def test_a_label_outside_its_classes_is_refused():
    vae = labelled.exact_pair()
    with pytest.raises(InputError, match=r"site 'label'"):
        pv.evaluate(vae.model, vae.guide, (X, torch.full((6,), 3)), progress=False)


@pytest.mark.parametrize("probs", [torch.ones(2), torch.tensor([1.0, 0.0, 1.0])])
def test_probabilities_of_classes_are_checked(probs):
    with pytest.raises(InputError, match="3 numbers above 0"):
        pv.SemiSupervisedVAE(labelled.Standard(), labelled.decoder, labelled.encoder, labelled.classifier, 3, probs)
