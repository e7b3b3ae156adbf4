"""A two-level Gaussian hierarchy, a plate within the plate over data: every datum is a group of J members.

With v = 1 / (t^-2 + s^-2), the variance of one member's latent once the group's is known::

    mu ~ N(0, g^2),  theta_j | mu ~ N(mu, t^2),  x_j | theta_j ~ N(theta_j, s^2)
    p(x) = N(0, g^2 11' + (t^2 + s^2) I),  p(theta_j | mu, x_j) = N(v (t^-2 mu + s^-2 x_j), v)
    p(mu | x) = N(m, u),  u = 1 / (g^-2 + J / (t^2 + s^2)),  m = u sum_j x_j / (t^2 + s^2)
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.base.errors import check_at_least_one
from pyrovae.programs.parameters import check_rows, learned_or_fixed, register_module, seeded


class Hierarchy(nn.Module):
    """Groups of J members: site "mu" in the plate over data, sites "theta" and "x" in that of members too.

    Args:
        num_members: J.
        group_scale: g > 0, a scalar: how far groups are apart.
        member_scale: t > 0, a scalar: how far the members of a group are apart.
        noise_scale: s > 0, a scalar: how far a measurement is from its member.

    Raises:
        InputError: if there is no member, or a scale is no positive scalar.

    References:
        Lindley and Smith (1972), Bayes estimates for the linear model, doi:10.1111/j.2517-6161.1972.tb00885.x.

    Example:
        >>> oracle = hierarchy(4)
        >>> {site: p.batch_shape for site, p in oracle.posterior(torch.zeros(7, 4)).items()}
        {'mu': torch.Size([7]), 'theta': torch.Size([4, 7])}
    """

    def __init__(self, num_members: int, group_scale: Tensor, member_scale: Tensor, noise_scale: Tensor) -> None:
        super().__init__()
        check_at_least_one(num_members=num_members)
        self.num_members = num_members
        self.group_scale = learned_or_fixed("group_scale", group_scale, torch.Size([]), positive=True)
        self.member_scale = learned_or_fixed("member_scale", member_scale, torch.Size([]), positive=True)
        self.noise_scale = learned_or_fixed("noise_scale", noise_scale, torch.Size([]), positive=True)

    def model(self, x: Tensor) -> None:
        """The program p(mu) p(theta | mu) p(x | theta) for x of shape (N, J)."""
        register_module(self)
        with pyro.plate("data", len(x), dim=-1):
            mu = pyro.sample("mu", dist.Normal(0.0, self.group_scale))
            with pyro.plate("members", self.num_members, dim=-2):
                theta = pyro.sample("theta", dist.Normal(mu, self.member_scale))
                pyro.sample("x", dist.Normal(theta, self.noise_scale), obs=x.T)

    def guide(self, x: Tensor) -> None:
        """The exact posterior p(mu | x) p(theta | mu, x) as a program: every importance weight is p(x)."""
        register_module(self)
        with pyro.plate("data", len(x), dim=-1):
            mu = pyro.sample("mu", self._group(x))
            with pyro.plate("members", self.num_members, dim=-2):
                pyro.sample("theta", dist.Normal(*self._member(mu, x)))

    def posterior(self, x: Tensor) -> dict[str, dist.Normal]:
        """p(mu | x) and p(theta_j | x) for x of shape (N, J): batch shapes (N,) and (J, N), as the sites have."""
        group = self._group(x)
        mean, deviation = self._member(group.mean, x)
        spread = (deviation / self.member_scale) ** 2 * group.stddev  # of the conditional mean, through mu
        return {"mu": group, "theta": dist.Normal(mean, (deviation**2 + spread**2).sqrt())}

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact log p(x) in nats, shape (N,), for x of shape (N, J)."""
        check_rows(x, torch.Size([self.num_members]))
        ones = self.group_scale.new_ones(self.num_members)
        apart = (self.member_scale**2 + self.noise_scale**2) * ones
        return dist.LowRankMultivariateNormal(0 * ones, self.group_scale * ones[:, None], apart).log_prob(x)

    def draw(self, num_data: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """x (N, J) and its latents mu (N,) and theta (J, N) drawn from the model; the generator is restored."""
        with torch.no_grad(), seeded(seed):
            mu = dist.Normal(0.0, self.group_scale).sample((num_data,))
            theta = dist.Normal(mu, self.member_scale).sample((self.num_members,))
            return dist.Normal(theta, self.noise_scale).sample().T.contiguous(), {"mu": mu, "theta": theta}

    def _group(self, x: Tensor) -> dist.Normal:
        check_rows(x, torch.Size([self.num_members]))
        precision = 1 / (self.member_scale**2 + self.noise_scale**2)
        variance = 1 / (self.group_scale**-2 + self.num_members * precision)
        return dist.Normal(variance * precision * x.sum(1), variance.sqrt())

    def _member(self, mu: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (..., J, N) and standard deviation () of theta given mu and x."""
        variance = 1 / (self.member_scale**-2 + self.noise_scale**-2)
        return variance * (mu / self.member_scale**2 + x.T / self.noise_scale**2), variance.sqrt()


def hierarchy(
    num_members: int, *, group_scale: float = 1.0, member_scale: float = 0.7, noise: float = 0.5
) -> Hierarchy:
    """The two-level hierarchy in float64."""
    return Hierarchy(num_members, *torch.tensor([group_scale, member_scale, noise], dtype=torch.float64))
