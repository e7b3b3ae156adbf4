"""Networks in a file of their own, and in containers: programs reach them by attribute, never by a name of their own."""

from types import SimpleNamespace

import torch
from torch import nn


def encoder(*layers: nn.Module) -> nn.Module:
    """Three numbers -> two, with weights that are always the same, in training mode as a fit leaves it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), *layers, nn.Tanh(), nn.Linear(4, 3))
    for layer in layers:
        if isinstance(layer, nn.BatchNorm1d) and layer.track_running_stats:
            layer.running_mean += 0.25
            layer.running_var *= 4
    return net


class Shelf:
    """Keeps networks as attributes, in a list and in a dict; it is no module itself."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.nets, self.by_name = net, [net], {"encoder": net}
        self.inner = SimpleNamespace(net=net)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


dropping = encoder(nn.Dropout(0.5))
normed = encoder(nn.BatchNorm1d(4))
