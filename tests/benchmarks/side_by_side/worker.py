"""One contender in a process of its own: python -m side_by_side.worker SPEC, with the driver at both ends of a pipe.

SPEC is JSON: the contender's "module:function", the fields of its problem, the device and the number of threads.
"""

import contextlib
import json
import os
import sys
from importlib import import_module
from importlib.metadata import version

from side_by_side.clock import Absent, Clock
from side_by_side.problems import Problem

LIBRARIES = {"torch": "torch", "pyro": "pyro-ppl", "jax": "jax", "numpyro": "numpyro", "pythae": "pythae"}


def main(spec: dict) -> None:
    replies = os.fdopen(os.dup(1), "w")  # the pipe; whatever a library prints goes where errors go
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec["threads"]])
    clock = Clock(replies)
    module, function = spec["contender"].split(":")
    spec["problem"]["hidden"] = tuple(spec["problem"]["hidden"])
    try:
        run = getattr(import_module(f"side_by_side.{module}"), function)
        clock.tell(versions={name: version(package) for name, package in LIBRARIES.items() if name in sys.modules})
        run(Problem(**spec["problem"]), spec["device"], clock)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in LIBRARIES:
            raise
        clock.tell(absent=f"{error.name} is not installed")
    except Absent as error:
        clock.tell(absent=str(error))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(json.loads(sys.argv[1]))
