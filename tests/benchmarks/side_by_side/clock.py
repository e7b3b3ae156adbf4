"""One clock for all contenders: it runs while a round does, and stands while another contender has its turn."""

import json
import sys
import time
from typing import TextIO


class Absent(Exception):
    """A contender cannot run here; the message says why."""


class Clock:
    """Called at the end of each round, it tells the driver the time of the round and waits for the next turn.

    Args:
        replies: where the driver reads.
    """

    def __init__(self, replies: TextIO) -> None:
        self.replies, self.started = replies, time.perf_counter()

    def __call__(self, value: float | None, units: int) -> None:
        """Ends a round of so many ``units`` of work.

        ``value`` is what the work found, a number on the host, so that a device has finished when it is there; None
        where it means nothing.
        """
        seconds = time.perf_counter() - self.started
        self.tell(seconds=seconds, value=value, units=units)
        if not sys.stdin.readline().strip():
            sys.exit()
        self.started = time.perf_counter()

    def tell(self, **reply: object) -> None:
        """One line to the driver."""
        print(json.dumps(reply), file=self.replies, flush=True)
