"""One training step under each objective and some priors: by hand in plain PyTorch, and ours.

By hand an objective is a loss of the two networks and a batch, in nats, summed over the batch: what its paper's code
does, without a probabilistic program. Draws that only the guide's gradient sees are held by ``detach``.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import pyrovae as pv
from side_by_side import by_hand
from side_by_side.clock import Clock
from side_by_side.problems import Problem
from side_by_side.with_pyrovae import built_in

LOG_2PI = math.log(2 * math.pi)
MIXTURE, PSEUDO_INPUTS, FLOW = 20, 500, {"transforms": 3, "hidden_features": (64, 64), "activation": nn.SiLU}


class Draws(NamedTuple):
    """K draws of the guide for each of n data, (K, n, D), and what they were made of."""

    z: Tensor
    noise: Tensor
    loc: Tensor
    log_scale: Tensor

    @classmethod
    def of(cls, encoder: nn.Module, x: Tensor, num: int) -> "Draws":
        loc, log_scale = encoder(x).chunk(2, -1)
        noise = torch.randn(num, *loc.shape, device=x.device)
        return cls(loc + log_scale.exp() * noise, noise, loc, log_scale)

    def log_guide(self) -> Tensor:
        """log q(z|x) without the normals' constant, (K, n)."""
        return -(0.5 * self.noise * self.noise + self.log_scale).sum(-1)

    def log_guide_at(self, z: Tensor, held: bool) -> Tensor:
        """The same as a function of z, the guide's parameters held or not."""
        loc, log_scale = (each.detach() if held else each for each in (self.loc, self.log_scale))
        return -(0.5 * ((z - loc) * (-log_scale).exp()).square() + log_scale).sum(-1)


def log_likelihood(decoder: Callable, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z), (K, n)."""
    logits = decoder(z)
    loss = functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
    return -loss.sum(-1)


def log_joint(decoder: Callable, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) without the normals' constant, (K, n)."""
    return log_likelihood(decoder, x, z) - 0.5 * z.square().sum(-1)


def log_mean_exp(log_weight: Tensor) -> Tensor:
    return log_weight.logsumexp(0) - math.log(len(log_weight))


# --------------------------------------------------------------------------------------------- the losses by hand


def elbo(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    return by_hand.negative_elbo(encoder, decoder, x)


def closed_form(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, 1)
    return _kl(draws).sum() - log_likelihood(decoder, x, draws.z).sum()


def _kl(draws: Draws) -> Tensor:
    """Of each coordinate, (n, D)."""
    return 0.5 * (draws.loc.square() + (2 * draws.log_scale).exp() - 1) - draws.log_scale


def sticking_the_landing(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, 1)
    return (draws.log_guide_at(draws.z, held=True) - log_joint(decoder, x, draws.z)).sum()


def iwae(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, num)
    return -log_mean_exp(log_joint(decoder, x, draws.z) - draws.log_guide()).sum()


def dreg(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, num)
    log_weight = log_joint(decoder, x, draws.z) - draws.log_guide_at(draws.z, held=True)
    weight = log_weight.detach().softmax(0)
    if draws.z.requires_grad:
        draws.z.register_hook(lambda gradient: weight.unsqueeze(-1) * gradient)
    return -(weight * log_weight).sum()


def renyi(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int, alpha: float = 0.5) -> Tensor:
    draws = Draws.of(encoder, x, num)
    log_weight = log_joint(decoder, x, draws.z) - draws.log_guide()
    return -log_mean_exp((1 - alpha) * log_weight).sum() / (1 - alpha)


def ciwae(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int, beta: float = 0.5) -> Tensor:
    draws = Draws.of(encoder, x, num)
    log_weight = log_joint(decoder, x, draws.z) - draws.log_guide()
    return -(beta * log_weight.mean(0) + (1 - beta) * log_mean_exp(log_weight)).sum()


def piwae(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int, bounds: int = 5) -> Tensor:
    draws = Draws.of(encoder, x, num)
    of_model = log_mean_exp(log_joint(decoder, x, draws.z.detach()) - draws.log_guide().detach()).sum()
    held = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    log_weight = log_joint(partial(functional_call, decoder, held), x, draws.z) - draws.log_guide()
    of_guide = (log_weight.unflatten(0, (bounds, -1)).logsumexp(1) - math.log(num // bounds)).mean(0).sum()
    return -(of_model + of_guide)


def vimco(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, num)
    z = draws.z.detach()
    log_guide = draws.log_guide_at(z, held=False)
    log_weight = log_joint(decoder, x, z) - log_guide
    bound, held = log_mean_exp(log_weight), log_weight.detach()
    others = (held.sum(0) - held) / (num - 1)
    own = torch.eye(num, dtype=torch.bool, device=x.device)[:, :, None]
    baseline = torch.where(own, others[:, None], held[None]).logsumexp(1) - math.log(num)
    return -(bound + ((bound.detach() - baseline) * log_guide).sum(0)).sum()


def reweighted_wake_sleep(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, num)
    z = draws.z.detach()
    log_guide, joint = draws.log_guide_at(z, held=False), log_joint(decoder, x, z)
    weight = (joint - log_guide).detach().softmax(0)
    return -(weight * (joint + log_guide)).sum()


def beta(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, 1)
    kl = draws.log_guide() + 0.5 * draws.z.square().sum(-1)
    return (4 * kl - log_likelihood(decoder, x, draws.z)).sum()


def free_bits(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, 1)
    return len(x) * _kl(draws).mean(0).clamp(min=0.5).sum() - log_likelihood(decoder, x, draws.z).sum()


def beta_tc(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, 1)
    z, of_size = draws.z[0], math.log(num * len(x))
    each = -0.5 * ((z[:, None] - draws.loc) * (-draws.log_scale).exp()).square() - draws.log_scale - 0.5 * LOG_2PI
    correlation = each.sum(-1).logsumexp(1) - of_size - (each.logsumexp(1) - of_size).sum(-1)
    kl = draws.log_guide() + 0.5 * draws.z.square().sum(-1)
    return (kl - log_likelihood(decoder, x, draws.z)).sum() + 3 * correlation.sum()


def mmd(encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, 1)
    z, y = draws.z[0], torch.randn_like(draws.loc)
    within, between, across = ((a[:, None] - b).square().sum(-1) for a, b in ((z, z), (y, y), (z, y)))
    pairs = len(x) * (len(x) - 1)
    unlike, width = 1 - torch.eye(len(x), device=x.device), between.sum() / pairs
    same, other, unequal = (((-each / width).exp() * unlike).sum() for each in (within, between, across))
    kl = draws.log_guide() + 0.5 * draws.z.square().sum(-1)
    return (kl - log_likelihood(decoder, x, draws.z)).sum() + len(x) * 10 * (same + other - 2 * unequal) / pairs


LOSSES = {
    "elbo": elbo,
    "analytic-kl": closed_form,
    "sticking-the-landing": sticking_the_landing,
    "iwae": iwae,
    "dreg": dreg,
    "renyi": renyi,
    "ciwae": ciwae,
    "piwae": piwae,
    "vimco": vimco,
    "reweighted-wake-sleep": reweighted_wake_sleep,
    "beta": beta,
    "free-bits": free_bits,
    "beta-tc": beta_tc,
    "mmd": mmd,
}


# --------------------------------------------------------------------------------------------- the priors by hand


class Mixture(nn.Module):
    """log p(z) of so many learned Gaussians."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.loc, self.log_scale = (nn.Parameter(torch.randn(MIXTURE, latent) * size) for size in (1.0, 0.0))
        self.logits = nn.Parameter(torch.zeros(MIXTURE))

    def forward(self, z: Tensor) -> Tensor:
        each = normal(z[..., None, :], self.loc, self.log_scale)
        return (each + self.logits.log_softmax(-1)).logsumexp(-1)


class Vamp(nn.Module):
    """log p(z), the encoder's posteriors at learned inputs."""

    def __init__(self, encoder: nn.Module, rows: Tensor) -> None:
        super().__init__()
        self.encoder = (encoder,)
        self.inputs = nn.Parameter(rows[torch.randint(len(rows), (PSEUDO_INPUTS,))].clone())

    def forward(self, z: Tensor) -> Tensor:
        loc, log_scale = self.encoder[0](self.inputs.clamp(0, 1)).chunk(2, -1)
        return normal(z[..., None, :], loc, log_scale).logsumexp(-1) - math.log(PSEUDO_INPUTS)


class Flow(nn.Module):
    """log p(z) of a flow of zuko's."""

    def __init__(self, kind: str, latent: int, **options: object) -> None:
        super().__init__()
        import zuko

        self.flow = getattr(zuko.flows, kind)(latent, **{**FLOW, **options})
        torch.distributions.Distribution.set_default_validate_args(False)

    def forward(self, z: Tensor) -> Tensor:
        return self.flow().log_prob(z)


def normal(z: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    each = -0.5 * ((z - loc) * (-log_scale).exp()).square() - log_scale - 0.5 * LOG_2PI
    return each.sum(-1)


PRIORS: dict[str, Callable[[nn.Module, Tensor, int], nn.Module]] = {
    "mixture:20": lambda encoder, rows, latent: Mixture(latent),
    "vamp:500": lambda encoder, rows, latent: Vamp(encoder, rows),
    "maf": lambda encoder, rows, latent: Flow("MAF", latent),
    "neural-spline-flow": lambda encoder, rows, latent: Flow("NSF", latent, transforms=2, bins=8),
}


def elbo_under(prior: nn.Module, encoder: nn.Module, decoder: nn.Module, x: Tensor, num: int) -> Tensor:
    draws = Draws.of(encoder, x, 1)
    z = draws.z[0]
    log_guide = draws.log_guide()[0] - 0.5 * LOG_2PI * z.shape[-1]
    return (log_guide - prior(z) - log_likelihood(decoder, x, z)).sum()


# ------------------------------------------------------------------------------------------------ the contenders


def _loss(problem: Problem, data: Tensor) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """The loss of a batch by hand, and all parameters, where and in what format the data are."""
    encoder, decoder = (network.to(data) for network in by_hand.networks(problem))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    loss = LOSSES["elbo" if problem.prior else problem.objective]
    if problem.prior:
        prior = PRIORS[problem.prior](encoder, data, problem.latent).to(data.device)
        loss, parameters = partial(elbo_under, prior), [*parameters, *prior.parameters()]
    num = problem.num_data if problem.objective == "beta-tc" else problem.num_particles
    return (lambda x: loss(encoder, decoder, x, num)), parameters


def compiled_loss(problem: Problem, device: str, clock: Clock) -> None:
    """torch.compile(loss) and the fused Adam, as people write it."""
    loss, parameters = _loss(problem, by_hand.resident(problem, device))
    by_hand.train(problem, device, clock, by_hand.stepped(torch.compile(loss), parameters))


def whole(problem: Problem, device: str, clock: Clock) -> None:
    """Loss, backward and Adam as one graph, compiled; on CUDA captured too. What a skilled person can do by hand."""
    by_hand.train_whole(problem, device, clock, *_loss(problem, by_hand.resident(problem, device)))


def ours(problem: Problem, device: str, clock: Clock) -> None:
    """pv.fit with the objective and the prior of these names."""
    vae, data = built_in(problem), by_hand.resident(problem, device)
    if problem.prior:
        vae.prior = _prior(problem, vae.encoder, data)
    pv.fit(
        *(vae.model, vae.guide, data),
        objective=_objective(problem),
        epochs=10**6,
        batch_size=problem.batch_size,
        device=device,
        progress=False,
        callback=lambda epoch, fitted: clock(-fitted.history[-1]["elbo"], problem.steps),
        compile=True,
    )


def _objective(problem: Problem) -> pv.objectives.Objective:
    choice = pv.objectives.OBJECTIVES[problem.objective]
    if problem.objective == "piwae":
        return choice(num_bounds=5, num_particles=problem.num_particles // 5)
    return choice(num_particles=problem.num_particles) if "num_particles" in choice.options else choice()


def _prior(problem: Problem, encoder: nn.Module, data: Tensor) -> nn.Module:
    name, _, _ = problem.prior.partition(":")
    choice = pv.priors.PRIORS[name]
    return choice(problem.latent, **({"encoder": encoder, "rows": data} if choice.needs else {}))
