"""The mixture guide: what its network says is a mixture of diagonal normals, and it finds two modes."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.programs.families import positive
from pyrovae.programs.guides.mixtures import mixture


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_its_density_is_torchs_mixture_of_the_same_numbers():
    guide, x = pv.Conditional(mixture(4), (3,), pv.networks.mlp(5, 6, seed=0)).double(), doubles(7, 5)
    locs, raw, logits = guide.network(x).split([12, 12, 4], -1)
    parts = dist.Normal(locs.unflatten(-1, (4, 3)), positive(raw.unflatten(-1, (4, 3)))).to_event(1)
    expected = torch.distributions.MixtureSameFamily(dist.Categorical(logits=logits), parts)
    z = doubles(2, 7, 3, seed=1)
    torch.testing.assert_close(guide(x).log_prob(z), expected.log_prob(z))


def test_begun_on_both_sides_it_holds_both_modes_where_one_normal_holds_one():
    """x = z^2 + noise: z and -z explain a datum alike."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.squeeze(-1) ** 2, 0.6), obs=x)

    x = torch.tensor([1.2, 1.6, 2.0, 2.4]).repeat(40)
    elbos = {}
    for name, family in {"normal": pv.families.normal(), "mixture": mixture(2)}.items():
        torch.manual_seed(0)
        encoder = pv.Conditional(family, (1,), pv.networks.mlp((), 16, seed=2))
        with torch.no_grad():
            encoder.network.network[-1].bias[:2] = torch.tensor([1.0, -1.0])  # means, of the normal the first

        def guide(x, encoder=encoder):
            pyro.module("encoder", encoder)
            with pyro.plate("data", len(x)):
                pyro.sample("z", encoder(x))

        settings = {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2), "batch_size": 160}
        fitted = pv.fit(model, guide, x, epochs=600, seed=0, progress=False, **settings)
        report = pv.evaluate(fitted.model, fitted.guide, x[:4], num_particles=2000, method="importance", progress=False)
        elbos[name] = float(report.elbo.mean())
    assert elbos["mixture"] - elbos["normal"] > 0.5  # of log 2 = 0.69


def test_what_is_no_mixture_is_refused():
    with pytest.raises(InputError, match="num_components must be at least 1"):
        mixture(0)
    with pytest.raises(InputError, match=r"over vectors, not over events of shape \(2, 3\)"):
        pv.Conditional(mixture(2), (2, 3), pv.networks.mlp(4, seed=0))
