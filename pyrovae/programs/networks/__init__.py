"""Networks: (..., *in) -> (..., out) for any leading dimensions, so that particles can stand before data.

Each function takes what it reads and returns a function of how many numbers it must give, which
:class:`~pyrovae.Conditional` calls with what its family needs. One's own ``nn.Module`` goes in its place as it is.
To add one for the command line: a file here, and its line in :data:`pyrovae.apps.recipes.NETWORKS`.
"""

from pyrovae.base.choices import handed_on

_PATHS = {
    "Beside": f"{__name__}.several:Beside",
    "NetworkBuilder": f"{__name__}.events:NetworkBuilder",
    "OnEvents": f"{__name__}.events:OnEvents",
    "OneHot": f"{__name__}.several:OneHot",
    "Residual": f"{__name__}.events:Residual",
    "beside": f"{__name__}.several:beside",
    "conv_decoder": f"{__name__}.convolutions:conv_decoder",
    "conv_encoder": f"{__name__}.convolutions:conv_encoder",
    "gated": f"{__name__}.perceptrons:gated",
    "masked_input": f"{__name__}.masked:masked_input",
    "mlp": f"{__name__}.perceptrons:mlp",
    "set_encoder": f"{__name__}.masked:set_encoder",
    "shape_beside_mask": f"{__name__}.masked:shape_beside_mask",
}
__all__ = [*_PATHS]
__getattr__, __dir__ = handed_on(__name__, _PATHS)
