"""How many threads a process may compute with."""

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable() -> int:
    """`OMP_NUM_THREADS` if it is set, as for several tasks that share a machine; else what the system gives us.

    TensorFlow and ONNX Runtime count processors themselves, but not what a container may use of them: with more
    threads than that, each waits for the others.
    """
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen):
        return int(chosen)
    return max(1, min(available(), _quota()))


def available() -> int:
    """Processors that this process may be scheduled on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> int:
    """How many of them the container may keep busy, begun ones included; as many as one likes where nothing says so.

    The file holds "max 100000", or microseconds of processor time and the period they are for (the kernel's cgroup v2).
    """
    try:
        allowed, period = _QUOTA.read_text().split()
        return math.ceil(int(allowed) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return available()
