"""The device of a name."""

import torch

from pyrovae.base.errors import InputError


def resolve_device(device: str) -> torch.device:
    """The device of a name; "auto" is CUDA when there is one.

    Raises:
        InputError: if the name is unknown or the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"unknown device '{device}'; use auto, cpu, cuda or cuda:N") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{device}' was asked for, but there is no CUDA device here; use auto or cpu")
    return target
