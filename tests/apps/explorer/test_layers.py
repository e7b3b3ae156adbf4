"""Networks as lists of layers: the page's interpreter gives what torch gives."""

import json

import pytest
import torch
from torch import Size, nn

from pyrovae.apps.explorer.layers import Unreadable, read
from pyrovae.programs import networks
from pyrovae.reports.explorer.page import packed


def group_norm(channels):
    return nn.GroupNorm(2, channels)


ACTIVATIONS = [nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, lambda: nn.GELU("tanh"), lambda: nn.Softplus(2.0), nn.ELU]
ACTIVATIONS += [nn.SELU, lambda: nn.LeakyReLU(0.2), nn.ReLU]
NETWORKS = {
    **{f"activation {i}": ((5,), networks.mlp(5, 7, 6, activation=a)) for i, a in enumerate(ACTIVATIONS)},
    "affine": ((2, 3), networks.mlp((2, 3))),
    "residual": ((5,), networks.mlp(5, 8, 6, residual=True, normalization=nn.LayerNorm)),
    "batch norm": ((5,), networks.mlp(5, 8, normalization=nn.BatchNorm1d)),
    "gated": ((4, 2), networks.gated((4, 2), 7, 6)),
    "encoder of images": ((2, 9, 7), networks.conv_encoder((2, 9, 7), channels=(3, 4), hidden=8)),
    "decoder of images": ((3,), networks.conv_decoder(3, (9, 7), channels=(4, 3), hidden=8)),
    "residual blocks": (
        (6, 6),
        networks.conv_encoder((6, 6), channels=(2, 4), hidden=5, num_blocks=1, normalization=group_norm),
    ),
    "batch norm of images": ((7, 6), networks.conv_encoder((7, 6), channels=(3,), normalization=nn.BatchNorm2d)),
    "one's own": ((3, 4), lambda n: nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Dropout(), nn.Linear(6, n))),
    "one's own images": (
        (1, 4, 4),
        lambda n: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.LayerNorm([2, 4, 4]), nn.ConvTranspose2d(2, 1, 3, stride=2),
            nn.Flatten(), nn.Linear(81, n, bias=False),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_runs_a_network_as_torch_does(name, opened):
    shape, build = NETWORKS[name]
    torch.manual_seed(0)
    network = build(63)
    for part in network.modules():  # statistics and weights that matter
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data += 0.2 * torch.rand_like(tensor)
    network.eval()
    x = torch.randn(3, *shape)
    layers, out = read(network, Size(shape))
    assert out == Size([63])
    script = f"[...network(unpackedAll({json.dumps(packed(layers))}))"
    found = [opened.run(f"{script}({row.flatten().tolist()})]") for row in x]
    torch.testing.assert_close(torch.tensor(found), network(x).detach(), rtol=2e-5, atol=2e-5)


class Doubled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (Doubled(nn.Linear(2, 2)), (2,), "a module of type Doubled"),
        (nn.Sequential(nn.Linear(2, 4), nn.Softmax(-1)), (2,), "Softmax"),
        (nn.Linear(3, 2), (2, 3), "over the last of several dimensions"),
        (nn.LayerNorm(3), (2, 3), "a LayerNorm over some of several dimensions"),
        (nn.Conv2d(2, 2, 3, groups=2), (2, 5, 5), "with groups, dilation"),
        (nn.Conv2d(2, 2, 3, padding="same"), (2, 5, 5), "a padding by name"),
        (nn.ZeroPad2d(1), (2, 5, 5), "a ZeroPad2d that pads"),
        (nn.GLU(1), (2, 4, 4), "a GLU of images"),
        (nn.Flatten(2), (2, 4, 4), "a Flatten of some dimensions"),
        (nn.Unflatten(2, (2, 2)), (2, 4), "an Unflatten of another dimension than the first"),
        (nn.BatchNorm1d(3, track_running_stats=False), (3,), "keeps no statistics"),
    ],
    ids=str,
)
def test_what_would_be_misread_is_not_read(module, shape, message):
    with pytest.raises(Unreadable, match=message):
        read(module, Size(shape))
