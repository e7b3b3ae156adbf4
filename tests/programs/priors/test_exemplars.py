"""The exemplar prior: the mean of normals at the encoder's means, and no datum is its own exemplar in training."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.programs.families import positive
from pyrovae.programs.priors import ExemplarPrior
from pyrovae.programs.priors.exemplars import Fingerprints, Kernels


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Linear(4, 4)

    def forward(self, x):
        loc, raw = self.network(x).chunk(2, -1)
        return dist.Normal(loc, positive(raw)).to_event(1)


ROWS = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))


def made(rows=ROWS, **options):
    encoder = Encoder()
    return ExemplarPrior(2, encoder=encoder, rows=rows, **options), encoder


def mean_over(prior, encoder, z, rows):
    """log of the mean of normals at the encoder's means, z (2,)."""
    each = dist.Normal(encoder(rows).mean, positive(prior.raw_scale)).to_event(1).log_prob(z)
    return each.logsumexp(0) - math.log(len(rows))


def test_in_eval_mode_it_is_the_mean_over_all_rows():
    prior, encoder = made(num_exemplars=5)
    prior.eval()
    encoder(ROWS[:3])
    z = torch.randn(6, 2)
    expected = torch.stack([mean_over(prior, encoder, each, ROWS) for each in z])
    torch.testing.assert_close(prior().log_prob(z), expected)
    assert prior().batch_shape == ()


def test_in_training_a_datum_is_not_its_own_exemplar():
    prior, encoder = made()
    batch = ROWS[[7, 2, 29]]
    z = encoder(batch).sample((5,))
    log_prob = prior().log_prob(z)
    for n, row in enumerate((7, 2, 29)):
        others = torch.cat([ROWS[:row], ROWS[row + 1 :]])
        expected = torch.stack([mean_over(prior, encoder, each, others) for each in z[:, n]])
        torch.testing.assert_close(log_prob[:, n], expected)


def test_what_was_read_counts_once():
    prior, encoder = made()
    encoder(ROWS[:3])
    assert prior().batch_shape == (3,) and prior().batch_shape == ()


def test_duplicates_are_left_out_with_it_and_strangers_leave_all():
    rows = torch.cat([ROWS[:4], ROWS[1:2]])
    prior, encoder = made(rows)
    encoder(torch.cat([ROWS[1:2], torch.randn(1, 4)]))
    assert prior().left_out.tolist() == [[False, True, False, False, True], [False] * 5]


def test_all_are_left_where_all_are_alike():
    prior, encoder = made(ROWS[:1].expand(5, 4))
    encoder(ROWS[:1])
    assert not prior().left_out.any()


def test_some_exemplars_are_drawn_for_each_batch():
    torch.manual_seed(0)
    prior, encoder = made(num_exemplars=10)
    means = encoder(ROWS).mean
    prior()  # uses up what was read
    first, second = prior().centres, prior().centres
    assert first.shape == (10, 2) and not torch.equal(first, second)
    assert all((centre - means).abs().sum(-1).min() < 1e-6 for centre in first)
    encoder(ROWS)
    left_out = prior().left_out
    assert left_out.shape == (30, 10) and left_out.sum(0).eq(1).all()  # each chosen row is that of one datum


def test_the_encoder_learns_through_it():
    prior, encoder = made()
    z = encoder(ROWS[:5]).sample()
    prior().log_prob(z).sum().backward()
    assert encoder.network.weight.grad[:2].abs().min() > 0 and prior.raw_scale.grad.abs() > 0


def test_draws_avoid_what_is_left_out():
    centres = torch.tensor([[0.0], [10.0], [20.0]])
    left_out = torch.tensor([[False, True, False], [False, False, True]])
    p = Kernels(centres, torch.tensor(0.1), left_out)
    torch.manual_seed(0)
    z = p.sample((1000,))[..., 0].div(10).round()
    assert set(z[:, 0].tolist()) == {0, 2} and set(z[:, 1].tolist()) == {0, 1}
    assert p.expand((4, 2)).log_prob(torch.zeros(4, 2, 1)).shape == (4, 2)


def test_far_centres_lose_no_digits():
    """Squares of a thousand would: of a nat, a tenth."""
    centres = 1000 + torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    z = centres[:10] + 0.1
    narrow, wide = Kernels(centres, torch.tensor(0.5)), Kernels(centres.double(), torch.tensor(0.5).double())
    torch.testing.assert_close(narrow.log_prob(z).double(), wide.log_prob(z.double()), rtol=0, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fingerprints_find_rows_in_any_dtype(dtype):
    rows = (torch.rand(200, 8, 8, generator=torch.Generator().manual_seed(2)) > 0.5).to(dtype)
    found = Fingerprints(rows).to(torch.float32)(rows[:50])
    assert torch.equal(found, torch.eye(200, dtype=torch.bool)[:50])


def test_digits_are_left_out_in_a_fit():
    """Every row of a batch has one exemplar of its own, and the fit sees to it that it is left out."""
    digits = pv.data.load("digits")
    recipe = {"prior": "exemplar:300", "likelihood": None, "network": "mlp", "latent": 2, "hidden": [8], "seed": 0}
    vae = pv.recipes.build(pv.recipes.complete(recipe, digits), digits)
    vae.prior.num_exemplars = len(digits.train)
    seen, forward = [], vae.prior.forward
    vae.prior.forward = lambda: seen.append(forward()) or seen[-1]
    fitted = pv.fit(vae.model, vae.guide, digits.train[:300], epochs=1)
    left_out = [p.left_out for p in seen if p.left_out is not None]
    assert len(left_out) >= 3 and all(each.sum(-1).eq(1).all() for each in left_out)  # 300 rows by 128
    assert fitted.history[0]["elbo"] > -900


def test_bits_that_are_drawn_anew_leave_out_another_draw_of_their_row():
    rows = pv.data.load("digits", binarization="dynamic").train
    encoder = pv.Conditional(pv.families.normal(), 2, pv.networks.mlp((8, 8), 5, seed=0))
    prior = ExemplarPrior(2, encoder=encoder, rows=rows)
    (x,) = rows.batch(slice(0, 100))
    encoder(x)
    left_out = prior().left_out
    assert left_out.sum(-1).eq(1).all()
    assert left_out.diagonal().double().mean() > 0.6  # 64 bits do not always tell a row from one that is like it


def test_what_is_learned_is_kept_alone():
    prior, _ = made()
    assert [name for name, _ in prior.named_parameters()] == list(prior.state_dict()) == ["raw_scale"]


def test_in_eval_mode_means_are_found_anew_where_weights_have_changed():
    prior, encoder = made()
    prior.eval()
    read = []
    encoder.register_forward_hook(lambda module, given, result: read.append(len(given[0])))
    first = prior().centres
    assert torch.equal(prior().centres, first) and read == [30]
    with torch.no_grad():
        encoder.network.bias.data += 1  # which no version of the parameter tells of
    torch.testing.assert_close(prior().centres, first + 1)
    assert read == [30, 30]
