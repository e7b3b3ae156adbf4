"""Gradients of an expectation by draws that carry them, beside those of the density by a grid."""

import torch


def grid(low, high, num, size=2):
    """Points of a grid (num ** size, size), in double, and the weight of each in an integral."""
    axis = torch.linspace(low, high, num, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * size).reshape(-1, size), float(axis[1] - axis[0]) ** size


def by_density(make, parameters, f, points, weight):
    """Gradients of the integral of q(z) f(z), for each parameter."""
    total = (make().log_prob(points).exp() * f(points)).sum() * weight
    return torch.autograd.grad(total, parameters)


def by_draws(make, parameters, f, num_batches=100, num_draws=1000):
    """The mean over batches of the gradient through draws, and its standard error, for each parameter."""
    each = []
    for _ in range(num_batches):
        found = torch.autograd.grad(f(make().rsample((num_draws,))).mean(), parameters, allow_unused=True)
        each.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)])
    stacked = [torch.stack(found) for found in zip(*each, strict=True)]
    return [(found.mean(0), found.std(0) / num_batches**0.5) for found in stacked]


def assert_draws_move_as_the_density_does(make, parameters, f, points, weight, **options):
    """Within five standard errors, of which some gradient is twenty large: a wrong one would show."""
    exact = by_density(make, parameters, f, points, weight)
    found = by_draws(make, parameters, f, **options)
    for expected, (mean, error) in zip(exact, found, strict=True):
        assert ((mean - expected).abs() <= 5 * error + 1e-6).all(), (mean, expected, error)
    assert any((expected.abs() > 20 * error).any() for expected, (_, error) in zip(exact, found, strict=True))
