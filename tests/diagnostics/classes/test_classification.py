"""Error, calibration and log p(x) of a pair as a classifier, against exact posteriors and by hand."""

from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch
from examples import labelled

import pyrovae as pv
from pyrovae.base.errors import InputError

X, Y = labelled.draw(300)
QUIET = {"progress": False}


def flat(x):
    return dist.Categorical(logits=torch.zeros(len(x), 3).double())


@pytest.fixture(scope="module")
def exact():
    vae = labelled.exact_pair()
    return pv.classification(vae.model, vae.guide, (X, Y), num_particles=3, **QUIET)


def test_under_the_exact_guide_both_are_the_posterior_and_the_sum_is_exact(exact):
    joint = labelled.log_joint(X)
    for found in (exact.guide, exact.model):
        torch.testing.assert_close(found, joint.softmax(1), rtol=0, atol=1e-10)
    torch.testing.assert_close(exact.log_evidence, joint.logsumexp(1), rtol=0, atol=1e-10)
    assert exact.mc_se_log_evidence.max() < 1e-10


def test_the_model_classifies_whatever_the_guide_says():
    vae = labelled.exact_pair(flat)
    found = pv.classification(vae.model, vae.guide, (X, Y), num_particles=3, **QUIET)
    torch.testing.assert_close(found.guide, torch.full((300, 3), 1 / 3).double())
    torch.testing.assert_close(found.model, labelled.log_joint(X).softmax(1), rtol=0, atol=1e-10)


def test_the_evidence_is_exact_within_its_error():
    def wide(x, y):
        exact = labelled.encoder(x, y)
        return dist.MultivariateNormal(exact.mean + 0.2, 1.5 * exact.covariance_matrix)

    vae = pv.SemiSupervisedVAE(labelled.Standard(), labelled.decoder, wide, flat, 3, labelled.PROBS)
    found = pv.classification(vae.model, vae.guide, (X[:50], Y[:50]), num_particles=1000, **QUIET)
    off = (found.log_evidence - labelled.log_joint(X[:50]).logsumexp(1)).abs()
    assert (off < 4 * found.mc_se_log_evidence).all()  # 4 standard errors
    assert found.mc_se_log_evidence.max() < 0.05


def test_error_and_calibration_by_hand(exact):
    probs = torch.tensor([[0.95, 0.05], [0.93, 0.07], [0.4, 0.6], [0.45, 0.55]], dtype=torch.float64)
    labels = torch.tensor([0.0, 1.0, 1.0, 1.0]).double()
    found = replace(exact, labels=labels, guide=probs, model=probs, log_evidence=labels, mc_se_log_evidence=labels)
    assert found.wrong("guide").tolist() == [0, 1, 0, 0]
    count, confidence, right = found.reliability("guide")
    assert count.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    torch.testing.assert_close(confidence[[5, 9]], torch.tensor([0.575, 0.94]).double())
    assert right[[5, 9]].tolist() == [1.0, 0.5]
    assert found.calibration_error("guide") == pytest.approx(0.5 * (0.425 + 0.44))
    account = found.numbers()["guide"]
    assert account["error"]["mean"] == 0.25
    assert account["brier"]["mean"] == pytest.approx((2 * 0.05**2 + 2 * 0.93**2 + 2 * 0.4**2 + 2 * 0.45**2) / 4)


def test_the_exact_posterior_is_calibrated(exact):
    count, confidence, right = exact.reliability("model")
    seen = count > 0
    error = (confidence * (1 - confidence) / count).sqrt()
    assert ((confidence - right).abs() < 4 * error + 1e-9)[seen].all()  # 4 standard errors


def test_a_pair_that_takes_no_labels_is_given_them_apart():
    oracle = pv.oracles.bernoulli_mixture(6, 3)
    x, z = oracle.draw(20, seed=0)
    found = pv.classification(oracle.model, oracle.guide, x, z.long(), site="k", **QUIET)
    torch.testing.assert_close(found.log_evidence, oracle.log_evidence(x).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (((X,), None, "y"), "the last tensor of the data is the labels"),
        (((X, torch.full((300,), -1)), None, "y"), "expected the class of each of 300 data"),
        (((X, Y), None, "z"), "site 'z' is no class of a datum; discrete latents: y"),
        (((X, Y + 1), None, "y"), r"labels are the classes 0\.\.2 of 'y', got 3"),
    ],
)
def test_what_has_no_class_is_refused(given, match):
    data, labels, site = given
    vae = labelled.exact_pair()
    with pytest.raises(InputError, match=match):
        pv.classification(vae.model, vae.guide, data, labels, site=site, **QUIET)
