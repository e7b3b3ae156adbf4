"""Numbers as plain values for JSON and for text, the same in every record; and the checks of whole numbers."""

from collections.abc import Mapping, Sequence

import numpy as np


def coordinates(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """A name for each coordinate of each site of a datum, by the site's shape: "z[3]", or the site's own for one alone.

    Example:
        >>> coordinates({"mu": (), "theta": (1, 2)})
        ['mu', 'theta[0]', 'theta[1]']
    """
    places = {name: np.ndindex(*(size for size in shape if size > 1)) for name, shape in shapes.items()}
    return [
        name + (f"[{','.join(map(str, place))}]" if place else "")
        for name, of_site in places.items()
        for place in of_site
    ]
