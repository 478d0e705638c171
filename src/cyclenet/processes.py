"""What processes owe each other: an end that can be cleaned up after, and none that is left behind."""

import ctypes
import multiprocessing
import os
import signal
import sys
from typing import Any

JOB = "CYCLENET_JOB"
"""Environment variable by which a sweep tells a job its own process number."""


def end_well() -> None:
    """Let SIGTERM end this program as an exception does, and end it when the process that started it is gone.

    A second process of a run is killed with the first. A sweep's job gets SIGTERM, and has time to save its state.
    """
    signal.signal(signal.SIGTERM, _exit)
    if "LOCAL_RANK" in os.environ:
        die_with_parent(signal.SIGKILL)
    elif JOB in os.environ:
        die_with_parent(signal.SIGTERM, int(os.environ[JOB]))


def _exit(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def die_with_parent(number: int, parent: int | None = None) -> None:
    """Ask the kernel (Linux) for a signal when the parent process ends; end at once if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG
        if parent is not None and os.getppid() != parent:
            os._exit(1)


def loader_worker(index: int) -> None:
    """Start a loader process in a group of its own: a signal to a job's group must not end it before the job has saved."""
    os.setpgrp()
    starter = multiprocessing.parent_process()
    die_with_parent(signal.SIGKILL, starter.pid if starter else None)
