"""What processes owe each other: an end that can be cleaned up after, and none that is left behind."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from typing import Any

JOB = "CYCLENET_JOB"
"""Environment variable by which a sweep tells a job its own process number."""


def end_well() -> None:
    """Let SIGTERM end this program as an exception does, and end it when the process that started it is gone.

    A second process of a run is killed with the first. A sweep's job gets SIGTERM, and has time to save its state. In SLURM,
    the signals that announce the time limit (``--signal=USR1@60``) put the job into the queue again; while it trains,
    `cyclenet.training.callbacks.KeepLast` saves first.
    """
    signal.signal(signal.SIGTERM, _exit)
    if "SLURM_JOB_ID" in os.environ:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, requeue)
    if "LOCAL_RANK" in os.environ:
        die_with_parent(signal.SIGKILL)
    elif JOB in os.environ:
        die_with_parent(signal.SIGTERM, int(os.environ[JOB]))


def _exit(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def requeue(number: int, frame: Any) -> None:
    """Put this SLURM job into the queue again, from its first task, and exit: a signal handler."""
    if os.environ.get("SLURM_PROCID", "0") == "0":
        array = os.environ.get("SLURM_ARRAY_JOB_ID")
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "requeue", job], check=False)
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
