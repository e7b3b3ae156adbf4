"""Rows and how they came to be: data sets by name or from files, as splits with their protocol."""

from pyrovae.base.choices import handed_on
from pyrovae.data.named import DATASETS

_PATHS = {
    "Columns": f"{__name__}.tables.kinds:Columns",
    "Dataset": f"{__name__}.split:Dataset",
    "Protocol": f"{__name__}.protocol:Protocol",
    "Split": f"{__name__}.split:Split",
    "as_split": f"{__name__}.split:as_split",
    "Kind": f"{__name__}.tables.kinds:Kind",
    "load": f"{__name__}.datasets:load",
    **{name: f"{__name__}.missing.masks:{name}" for name in ("hide", "mcar", "mar", "mnar")},
    "outline": f"{__name__}.pictures.outlines:outline",
    "load_like": f"{__name__}.tables.assembly:load_like",
}
__all__ = ["DATASETS", *_PATHS]
__getattr__, __dir__ = handed_on(__name__, _PATHS, "DATASETS")
