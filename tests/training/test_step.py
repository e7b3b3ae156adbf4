"""One step of SVI over all parameters, refused where it is not finite."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples.moving import beyond
from examples.small import make_data, make_vae
from pyro.infer import ELBO, SVI, Trace_ELBO

import pyrovae as pv
from pyrovae.pairs.handlers import scorable
from pyrovae.training.optimizers import adam
from pyrovae.training.step import NonFiniteLoss, Step


class Given(ELBO):
    """An objective whose loss and gradients are those that a test says."""

    def loss_and_grads(self, model, guide, *args):
        for name, parameter in pyro.get_param_store().named_parameters():
            if name in self.gradients:
                parameter.grad = torch.tensor(self.gradients[name])
        return self.value

    loss = _get_trace = None


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


class Stepped:
    """A step whose gradients are given at each call, over parameters p0, p1, ... of the store."""

    def __init__(self, optimizer, *values):
        with torch.no_grad():
            for i, value in enumerate(values):
                pyro.param(f"p{i}", torch.tensor(value))
        self.objective = Given()
        self.step = Step(model, guide, optimizer, self.objective)

    @property
    def parameters(self):
        return [p for _, p in pyro.get_param_store().named_parameters()]

    def __call__(self, *gradients, loss=1.0):
        self.objective.value = loss
        self.objective.gradients = {f"p{i}": g for i, g in enumerate(gradients) if g is not None}
        return self.step.step(torch.zeros(2))


@pytest.fixture(autouse=True)
def own_store():
    with pyro.get_param_store().scope():
        yield


def makers():
    return {"torch": adam(0.1), "pyro": pyro.optim.Adam({"lr": 0.1})}


@pytest.mark.parametrize("name", makers())
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_reaches_no_weight(name, bad):
    stepped = Stepped(makers()[name], 1.0, 2.0)
    with pytest.raises(NonFiniteLoss, match="gradient of p1 is not finite"):
        stepped(1.0, bad)
    assert [p.item() for p in stepped.parameters] == [1.0, 2.0]


def test_finite_gradients_whose_norm_is_not_are_finite():
    stepped = Stepped(lambda ps: torch.optim.SGD(ps, lr=0.0), 1.0, 2.0)
    assert stepped(3e38, -3e38).loss == 1.0


def test_a_loss_that_is_not_finite_moves_nothing():
    stepped, noise = Stepped(adam(0.1), 1.0), torch.get_rng_state()
    with pytest.raises(NonFiniteLoss, match="the loss is inf"):
        stepped(1.0, loss=math.inf)
    assert stepped.parameters[0].item() == 1.0
    assert torch.equal(torch.get_rng_state(), noise)


@pytest.mark.parametrize("name", makers())
def test_it_steps_as_torch_does(name):
    stepped = Stepped(makers()[name], [1.0, -2.0])
    theirs = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    plain = torch.optim.Adam([theirs], lr=0.1)
    for gradient in ([0.3, -0.1], [1.0, 2.0], [0.0, -1.0]):
        theirs.grad = torch.tensor(gradient)
        stepped(gradient)
        plain.step()
    torch.testing.assert_close(stepped.parameters[0].detach(), theirs.detach())


@pytest.mark.parametrize("objective", [Trace_ELBO, pv.objectives.SampledELBO])
def test_its_losses_and_weights_are_those_of_pyros_own_step(objective):
    x, losses, pairs = make_data(), [], [make_vae(), make_vae()]
    for pair, kind in zip(pairs, (SVI, Step), strict=True):
        with pyro.get_param_store().scope():
            svi = kind(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), objective())
            if kind is Step:
                svi.prime([(x,)], [pair])
            torch.manual_seed(0)
            taken = [svi.step(x) for _ in range(3)]
            losses.append([float(one.loss) if kind is Step else one for one in taken])
    assert losses[0] == losses[1]
    for a, b in zip(*(pair.parameters() for pair in pairs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "maker", [lambda ps: torch.optim.SGD(ps, lr=1.0), pyro.optim.SGD({"lr": 1.0})], ids=["torch", "pyro"]
)
def test_rates_scale_from_the_first_step_on_and_are_stored_unscaled(maker):
    stepped, moved = Stepped(maker, 0.0), []
    for factor in (0.5, 1.0, 0.25, 0.0):
        stepped.step.rate = factor
        before = stepped.parameters[0].item()
        stepped(1.0)
        moved.append(before - stepped.parameters[0].item())
    assert moved == [0.5, 1.0, 0.25, 0.0]
    state = stepped.step.optim.get_state()
    assert (state if "param_groups" in state else state["p0"])["param_groups"][0]["lr"] == 1.0


def test_an_optimizers_own_decay_stays_under_a_schedule():
    stepped = Stepped(pyro.optim.ClippedAdam({"lr": 1.0, "lrd": 0.5}), 0.0)
    stepped.step.rate = 0.1
    for _ in range(3):
        stepped(1.0)
    made = stepped.step.optim.optim_objs[stepped.parameters[0]]
    assert made.param_groups[0]["lr"] == pytest.approx(0.125)


def test_a_scheduler_of_pyro_is_stepped():
    scheduled = pyro.optim.ExponentialLR({"optimizer": torch.optim.SGD, "optim_args": {"lr": 1.0}, "gamma": 0.5})
    stepped = Stepped(scheduled, 0.0)
    stepped.step.rate = 0.5
    stepped(1.0)
    assert stepped.parameters[0].item() == -0.5


def test_what_is_frozen_stays():
    vae, frozen = make_vae(), []

    def freeze(epoch, so_far):
        vae.decoder.requires_grad_(epoch != 2)
        frozen.append([p.clone() for p in vae.decoder.parameters()])

    pv.fit(vae.model, vae.guide, make_data(), epochs=4, callback=freeze, progress=False)
    still, moved = ([torch.equal(a, b) for a, b in zip(*pair, strict=True)] for pair in (frozen[1:3], frozen[2:4]))
    assert all(still) and not any(moved)


def test_a_tensor_that_is_no_parameter_of_the_programs_is_stepped_by_its_own_gradient():
    vae, extra = make_vae(), torch.zeros((), requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(extra.expand(len(x)), 1.0), obs=torch.ones(len(x)))

    def optimizer(parameters):
        return torch.optim.SGD([*parameters, extra], lr=0.01)

    pv.fit(model, vae.guide, make_data(10), epochs=3, optimizer=optimizer, progress=False)
    assert extra.item() == pytest.approx(1 - 0.9**3)


def test_a_parameter_that_appears_late_is_stepped_too():
    stepped = Stepped(lambda ps: torch.optim.SGD(ps, lr=1.0), 0.0)
    stepped.step.rate = 0.5
    stepped(1.0)
    pyro.param("p1", torch.tensor(0.0))
    stepped(1.0, 1.0)
    assert [p.item() for p in stepped.parameters] == [-1.0, -0.5]


def test_gradients_are_forgotten_after_each_step():
    for optimizer in makers().values():
        with pyro.get_param_store().scope():
            stepped = Stepped(optimizer, 0.0)
            stepped(1.0)
            assert stepped.parameters[0].grad is None


@pytest.mark.parametrize("objective", [Trace_ELBO, pv.objectives.SampledELBO, pv.objectives.AnalyticKLELBO])
def test_latents_that_rule_a_datum_out_are_named_though_torchs_density_goes_on(objective):
    """x = z + an exponential, z drawn above x."""
    x = torch.zeros(3)

    def waits(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", beyond(z), obs=x)

    def late(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("late", torch.tensor(9.0)).expand(len(x)), 1.0))

    with pyro.validation_enabled(False):
        step = Step(scorable(waits), late, adam(0.1), objective())
        with pytest.raises(
            NonFiniteLoss, match=r"site 'x' is not finite; the step was not taken\. Transformed.* has no"
        ):
            step.step(x)
