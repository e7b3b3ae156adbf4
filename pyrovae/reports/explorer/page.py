"""One HTML file from a scene: markup, style, JavaScript and numbers, and not one request for anything else."""

import base64
import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from pyrovae.base.storage import write_whole

SCRIPTS = ("networks.js", "densities.js", "model.js", "drawing.js", "explorer.js")  # in the order of their needs
BASE64 = 4 / 3  # characters for a byte


def written(scene: dict[str, Any], path: Path) -> int:
    """Writes the page of a scene, whole or not at all.

    Args:
        scene: what the page shows; NumPy arrays in it are packed as float32, or as bytes where they are uint8.
        path: of the file.

    Returns:
        Its size in bytes.
    """
    content = page(scene).encode()
    write_whole(path, content)
    return len(content)


def page(scene: dict[str, Any]) -> str:
    """The text of the page."""
    data = json.dumps(packed(scene), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "TITLE": html.escape(scene["title"]),
        "STYLE": _own("explorer.css"),
        "SCENE": data,
        "SCRIPTS": "\n".join(_own(name) for name in SCRIPTS),
    }
    text = _own("explorer.html")
    for name, part in parts.items():
        text = text.replace(f"@@{name}@@", part, 1)
    return text


def packed(item: Any) -> Any:
    """A tree with its arrays as base64 of their bytes, and what is not finite as null."""
    if isinstance(item, dict):
        return {name: packed(value) for name, value in item.items()}
    if isinstance(item, list | tuple):
        return [packed(value) for value in item]
    if isinstance(item, np.ndarray):
        array = np.ascontiguousarray(item, "u1" if item.dtype == np.uint8 else "<f4")
        kind = "u1" if array.dtype == np.uint8 else "f4"
        return {"type": kind, "shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode()}
    if isinstance(item, float):
        return item if np.isfinite(item) else None
    return item


def num_bytes(item: Any) -> int:
    """What the arrays of a tree take in a page, in bytes."""
    if isinstance(item, dict | list | tuple):
        return sum(num_bytes(part) for part in (item.values() if isinstance(item, dict) else item))
    if isinstance(item, np.ndarray):
        return round(item.size * (1 if item.dtype == np.uint8 else 4) * BASE64)
    return 0


def _own(name: str) -> str:
    return resources.files("pyrovae.reports.explorer").joinpath(name).read_text(encoding="utf-8")
