"""The guide's own family: for every pair of the zoo it starts at the guide, or says which site it cannot free."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.zoo import ZOO

from pyrovae.base.errors import InputError
from pyrovae.evidence.proposals.guide_family import own_family
from pyrovae.evidence.proposals.local import Guide
from pyrovae.pairs.context import isolated
from pyrovae.pairs.latents import Latents

DEPENDENT = {"hierarchical"}
NOT_HERE = {"no-latents", "auto-normal", "masked-rows"} | {
    "discrete-and-continuous",
    "mixture",
}  # refused before any family is made


@pytest.mark.parametrize("name", [name for name in ZOO if name not in NOT_HERE])
def test_it_starts_at_the_guide_with_parameters_for_each_datum(name):
    case = ZOO[name]()
    with isolated(case.model, case.guide) as (model, guide, _):
        torch.manual_seed(0)
        latents = Latents(model, guide, case.args, plate=case.plate)
        near = Guide(latents)
        if name in DEPENDENT:
            with pytest.raises(InputError, match=r"site 'z\w*' of the guide: its parameters depend on another draw"):
                own_family(latents, near)
            return
        family = own_family(latents, near)
        assert all(len(value) == latents.num_data for value in family.start.values())
        own = family.build(family.start)
        for drawing in (own, near):
            values = drawing.draw(3)
            joint = latents.log_joint(values)
            torch.testing.assert_close(
                own.log_prob(values, joint), latents.log_guide(values).double(), rtol=1e-4, atol=1e-4
            )


def model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def guide_of(make):
    """A guide whose z is drawn from what ``make`` makes of data x (n,)."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", make(x))

    return guide


def unlike(x):
    """n different positive matrices of three rows."""
    return x[:, None, None] * torch.ones(3, 3).tril() + 2 * torch.eye(3)


FREED = {  # name: (a distribution over three numbers, its free parameters)
    "normal": (lambda x: dist.Normal(x[:, None], torch.ones(3)).to_event(1), {"loc": 3, "scale": 3}),
    "student": (
        lambda x: dist.StudentT(x[:, None].exp(), torch.zeros(3), 1.0).to_event(1),
        {"df": 3, "loc": 3, "scale": 3},
    ),
    "laplace": (lambda x: dist.Laplace(x[:, None], torch.ones(3)).to_event(1), {"loc": 3, "scale": 3}),
    "scale_tril": (
        lambda x: dist.MultivariateNormal(x.new_zeros(3), scale_tril=unlike(x)),
        {"loc": 3, "scale_tril": 9},
    ),
    "covariance": (
        lambda x: dist.MultivariateNormal(x.new_zeros(3), unlike(x) @ unlike(x).mT),
        {"loc": 3, "scale_tril": 9},
    ),
    "mixture of normals": (
        lambda x: dist.MixtureOfDiagNormals(
            x[:, None, None] + torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),
            torch.ones(len(x), 2, 3),
            torch.zeros(len(x), 2),
        ),
        {"locs": 6, "coord_scale": 6, "component_logits": 2},
    ),
    "low rank": (
        lambda x: dist.LowRankMultivariateNormal(x[:, None].expand(-1, 3), unlike(x)[..., :1], torch.ones(3)),
        {"loc": 3, "cov_factor": 3, "cov_diag": 3},
    ),
}


@pytest.mark.parametrize(("make", "parameters"), FREED.values(), ids=FREED)
def test_each_parameter_is_said_once_and_free(make, parameters):
    x = torch.tensor([0.1, 0.5, 0.9, 1.0])
    with isolated(model, guide_of(make)) as (run, guide, _):
        torch.manual_seed(0)
        latents = Latents(run, guide, (x,))
        family = own_family(latents, Guide(latents))
        assert {name: value[0].numel() for name, value in family.start.items()} == {
            f"z {name}": count for name, count in parameters.items()
        }
        values = latents.draw(2)
        joint = latents.log_joint(values)
        own = family.build(family.start).log_prob(values, joint)
        torch.testing.assert_close(own, latents.log_guide(values).double(), rtol=1e-4, atol=1e-4)
        moved = {name: value + 0.3 * torch.rand_like(value) for name, value in family.start.items()}
        assert (family.build(moved).log_prob(values, joint) != own).all()


FLOW = dist.transforms.AffineTransform(0.0, 2.0)
REFUSED = {
    "a flow": (
        lambda x: dist.TransformedDistribution(dist.Normal(x[:, None].expand(-1, 3), 1.0), [FLOW]).to_event(1),
        "site 'z' of the guide: TransformedDistribution is not given by parameters",
    ),
    "bounds": (
        lambda x: dist.Uniform(-9 - x[:, None].expand(-1, 3), 9.0).to_event(1),
        "site 'z' of the guide: the support of Uniform depends on its parameters",
    ),
    "no gradients": (
        lambda x: dist.VonMises(x[:, None].expand(-1, 3), 1.0).to_event(1),
        "site 'z' of the guide: draws of VonMises carry no gradient",
    ),
    "noise of its own": (
        lambda x: dist.Normal(torch.randn(len(x), 3), 1.0).to_event(1),
        "site 'z' of the guide: its parameters depend on another draw",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_freed_is_refused_by_name(make, message):
    with isolated(model, guide_of(make)) as (run, guide, _):
        torch.manual_seed(0)
        latents = Latents(run, guide, (torch.rand(4),), strategy="looped")
        with pytest.raises(InputError, match=f"{message}.*Leave 'own' out of families"):
            own_family(latents, Guide(latents))
