"""A network as a list of plain layers, numbers and names alone, that an interpreter of a few lines can run.

Each is a dict with its ``kind``; arrays are NumPy's. What a list says is what the module does in eval mode:

    linear     y = W x + b
    scale      y = a x + b, by channel (batch normalization at rest)
    norm       y = a (x - mean) / sd + b, over groups of channels, a and b by channel (layer and group normalization)
    activation y = f(x), by name
    glu        y = h sigmoid(g), x being h, then g
    conv       a convolution, and transposed its transpose
    crop       fewer rows and columns at the end
    residual   y = shortcut(x) + change(x), both lists
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Size, Tensor, nn

from pyrovae.programs.networks.events import OnEvents, Residual

Layer = dict[str, Any]
Read = tuple[list[Layer], Size]  # the layers, and the shape of what they give


class Unreadable(Exception):
    """A module is none of the kinds that are read; its text says which."""


def read(module: nn.Module, shape: Size) -> Read:
    """The layers of a network for events of a shape.

    Args:
        module: made of torch's own modules, one after another, and of pyrovae's networks.
        shape: of one input, without a dimension of rows.

    Returns:
        The list, and the shape of one output.

    Raises:
        Unreadable: naming the first module that is not known.

    Example:
        >>> layers, shape = read(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), Size([2]))
        >>> [layer["kind"] for layer in layers], shape
        (['linear', 'activation'], torch.Size([3]))
    """
    reader = READERS.get(type(module))  # a subclass may do anything
    if reader is None:
        raise Unreadable(f"a module of type {type(module).__name__}")
    return reader(module, shape)


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().cpu().float().numpy()


def _sequential(module: Any, shape: Size) -> Read:
    layers: list[Layer] = []
    for part in module:
        more, shape = read(part, shape)
        layers += more
    return layers, shape


def _on_events(module: OnEvents, shape: Size) -> Read:
    return read(module.network, Size([shape.numel()]))


def _residual(module: Residual, shape: Size) -> Read:
    (change, out), (shortcut, _) = read(module.change, shape), read(module.shortcut, shape)
    return [{"kind": "residual", "change": change, "shortcut": shortcut}], out


def _nothing(module: nn.Module, shape: Size) -> Read:
    return [], shape


def _flatten(module: nn.Flatten, shape: Size) -> Read:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise Unreadable("a Flatten of some dimensions")
    return [], Size([shape.numel()])


def _unflatten(module: nn.Unflatten, shape: Size) -> Read:
    if module.dim != 1 or len(shape) > 1:
        raise Unreadable("an Unflatten of another dimension than the first")
    return [], Size(module.unflattened_size)


def _linear(module: nn.Linear, shape: Size) -> Read:
    if shape != Size([module.in_features]):
        raise Unreadable(f"a Linear over the last of several dimensions, {tuple(shape)}")
    layer = {"kind": "linear", "weight": _array(module.weight), "bias": _array(module.bias)}
    return [layer], Size([module.out_features])


def _batch_norm(module: Any, shape: Size) -> Read:
    if module.running_mean is None:
        raise Unreadable("a batch normalization that keeps no statistics")
    scale = (module.running_var + module.eps).rsqrt() * (1.0 if module.weight is None else module.weight)
    shift = (0.0 if module.bias is None else module.bias) - module.running_mean * scale
    return [{"kind": "scale", "weight": _array(scale), "bias": _array(shift)}], shape


def _norm(module: Any, groups: int, shape: Size) -> Read:
    affine = {"weight": _array(module.weight), "bias": _array(module.bias)}
    return [{"kind": "norm", "groups": groups, "eps": module.eps, **affine}], shape


def _layer_norm(module: nn.LayerNorm, shape: Size) -> Read:
    if tuple(module.normalized_shape) != tuple(shape):
        raise Unreadable(f"a LayerNorm over some of several dimensions, {tuple(shape)}")
    return _norm(module, 1, shape)


def _group_norm(module: nn.GroupNorm, shape: Size) -> Read:
    return _norm(module, module.num_groups, shape)


def _glu(module: nn.GLU, shape: Size) -> Read:
    if len(shape) > 1 or module.dim != -1:
        raise Unreadable("a GLU of images")
    return [{"kind": "glu"}], Size([shape[0] // 2])


def _conv(module: Any, shape: Size) -> Read:
    _check_plain(module)
    sizes = (
        (side + 2 * pad - kernel) // stride + 1
        for side, pad, kernel, stride in zip(shape[1:], module.padding, module.kernel_size, module.stride, strict=True)
    )
    return _convolution("conv", module, shape, Size([module.out_channels, *sizes]))


def _transposed(module: Any, shape: Size) -> Read:
    _check_plain(module)
    sizes = (
        (side - 1) * stride - 2 * pad + kernel + more
        for side, stride, pad, kernel, more in zip(
            shape[1:], module.stride, module.padding, module.kernel_size, module.output_padding, strict=True
        )
    )
    return _convolution("transposed", module, shape, Size([module.out_channels, *sizes]))


def _check_plain(module: Any) -> None:
    plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str):
        raise Unreadable(f"a {type(module).__name__} with groups, dilation or a padding by name")


def _convolution(kind: str, module: Any, shape: Size, out: Size) -> Read:
    how = {"stride": list(module.stride), "padding": list(module.padding), "from": list(shape), "to": list(out)}
    return [{"kind": kind, "weight": _array(module.weight), "bias": _array(module.bias), **how}], out


def _crop(module: nn.ZeroPad2d, shape: Size) -> Read:
    left, right, top, bottom = module.padding
    if left or top or right > 0 or bottom > 0:
        raise Unreadable("a ZeroPad2d that pads")
    out = Size([shape[0], shape[1] + bottom, shape[2] + right])
    return [{"kind": "crop", "from": list(shape), "to": list(out)}] if out != shape else [], out


def _activation(name: str, *numbers: str) -> Callable[[Any, Size], Read]:
    """Reads a nonlinearity, and what it was made with."""

    def reader(module: Any, shape: Size) -> Read:
        return [{"kind": "activation", "name": name, "numbers": [getattr(module, n) for n in numbers]}], shape

    return reader


def _gelu(module: nn.GELU, shape: Size) -> Read:
    return _activation("gelu" if module.approximate == "none" else "gelu-tanh")(module, shape)


READERS: dict[type, Callable[[Any, Size], Read]] = {
    OnEvents: _on_events,
    Residual: _residual,
    nn.Sequential: _sequential,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout), _nothing),
    nn.Linear: _linear,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), _batch_norm),
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.GLU: _glu,
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _transposed,
    nn.ZeroPad2d: _crop,
    nn.ReLU: _activation("relu"),
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.SiLU: _activation("silu"),
    nn.GELU: _gelu,
    nn.Softplus: _activation("softplus", "beta"),
    nn.ELU: _activation("elu", "alpha"),
    nn.SELU: _activation("selu"),
    nn.LeakyReLU: _activation("leaky", "negative_slope"),
}
