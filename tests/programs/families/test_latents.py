"""Families of latents that are no real vectors."""

import torch

from pyrovae.programs import families


def test_proportions_keep_off_the_edge_in_float32():
    torch.manual_seed(0)
    q = families.dirichlet().build(1, torch.full((1000, 5), -50.0))
    z = q.sample((20,))
    assert ((z > 0) & (z < 1)).double().mean() > 0.999


def test_codes_have_one_class_each():
    q = families.one_hot().build(2, torch.randn(7, 3, 4))
    assert (q.batch_shape, q.event_shape) == ((7,), (3, 4)) and (q.sample().sum(-1) == 1).all()


def test_directions_gather_where_they_are_told():
    q = families.power_spherical().build(1, torch.tensor([[0.0, 3.0, 0.0]]), torch.tensor([50.0]))
    assert (q.sample((100,))[..., 1] > 0.9).double().mean() > 0.95


def test_a_beta_of_one_mode_keeps_off_the_edge_in_float32():
    torch.manual_seed(0)
    raw = torch.tensor([[-40.0, -40.0], [40.0, 0.0], [-40.0, 40.0], [3.0, 40.0]])
    q = families.unimodal_beta().build(0, *raw.T)
    assert (q.concentration1 >= 1).all() and (q.concentration0 >= 1).all()
    z = q.sample((20_000,))
    assert ((z > 0) & (z < 1)).double().mean() > 0.999
    mode = (q.concentration1 - 1) / (q.concentration1 + q.concentration0 - 2)
    torch.testing.assert_close(mode, raw[:, 0].sigmoid(), rtol=1e-2, atol=1e-4)


def test_a_beta_without_concentration_is_nearly_uniform():
    q = families.unimodal_beta().build(1, torch.randn(5), torch.full((5,), -50.0))
    assert q.log_prob(torch.rand(7, 5)).abs().max() < 0.01
