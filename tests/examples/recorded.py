"""A guide whose draws a test can read."""

import pyro.poutine as poutine


class Recorded:
    """A guide that keeps what it drew."""

    def __init__(self, guide):
        self.guide, self.values = guide, []

    def __call__(self, *args):
        trace = poutine.trace(self.guide).get_trace(*args)
        self.values.append({name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"})
