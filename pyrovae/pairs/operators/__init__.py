"""What is observed of data in place of the data: masks, linear maps and noise, as handlers around any model."""

from pyrovae.base.choices import handed_on

_HOMES = {
    "entries": "masked",
    "linear": "linear_maps",
    "salt_and_pepper": "impulses",
    **dict.fromkeys(("grey", "coarse", "blur", "named", "random_mask", "MASKS", "TASKS"), "images"),
    "Operator": "operator",
}
_PATHS = {name: f"{__name__}.{home}:{name}" for name, home in _HOMES.items()}
__all__ = list(_PATHS)
__getattr__, __dir__ = handed_on(__name__, _PATHS)
