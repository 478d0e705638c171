"""How the processes of a run end together (signals, SLURM's requeueing), and work in threads."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

JOB = "CYCLENET_JOB"  # Environment variable by which a sweep tells a job its own process number.


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a training at its next step."""
    return (signal.SIGINT, signal.SIGTERM, *requeue_signals())


def requeue_signals() -> tuple[signal.Signals, ...]:
    """Return the signals of which SLURM sends one before the time limit (conf/hydra/launcher)."""
    names = ("SIGUSR1", "SIGUSR2")  # Windows has none of them.
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def install_signal_handlers() -> None:
    """Let SIGTERM end this program as an exception does, and end it with the process above it.

    A second process of a run is killed with the first. A sweep's job gets SIGTERM, and has time to
    save its state. In SLURM, the signals that announce the time limit (``--signal=USR1@60``) put
    the job into the queue again; while it trains, `cyclenet.training.keep.KeepLast` saves first.
    """
    signal.signal(signal.SIGTERM, exit_by_signal)
    if "SLURM_JOB_ID" in os.environ:
        # The sweep queues itself again, not each of its jobs.
        handler = exit_by_signal if JOB in os.environ else requeue
        for number in requeue_signals():
            signal.signal(number, handler)
    if "LOCAL_RANK" in os.environ:
        die_with_parent(9)
    elif JOB in os.environ:
        die_with_parent(signal.SIGTERM, int(os.environ[JOB]))


def exit_by_signal(number: int, frame: Any) -> None:
    """Exit with the code that a shell gives to a signal: a signal handler."""
    raise SystemExit(128 + number)


def requeue(number: int, frame: Any) -> None:
    """Put this SLURM job into the queue again, from its first task, and exit: a signal handler."""
    if os.environ.get("SLURM_PROCID", "0") == "0":
        array = os.environ.get("SLURM_ARRAY_JOB_ID")
        task = os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "requeue", job], check=False)
    raise SystemExit(128 + number)


def die_with_parent(number: int, parent: int | None = None) -> None:
    """Ask the kernel (Linux) for a signal when the parent process ends.

    Where the parent is gone already, this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG
        if parent is not None and os.getppid() != parent:
            os._exit(1)


def start_loader_worker(index: int) -> None:
    """Give a loader process a group of its own.

    A signal to the job's group must not end the loader before the job has saved.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    starter = multiprocessing.parent_process()
    # The number of SIGKILL, whose name Windows lacks.
    die_with_parent(9, starter.pid if starter else None)


def peak_rss_mb() -> float | None:
    """Return the peak memory of this process plus its largest child, MiB; None on Windows."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    usages = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    total = sum(resource.getrusage(usage).ru_maxrss for usage in usages)
    return round(total / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)


def map_in_threads(
    function: Callable[[S], T],
    items: Sequence[S],
    title: str,
    workers: int,
    initializer: Callable[[], object] | None = None,
) -> list[T]:
    """Apply a function to all items, in threads, and show how far it is.

    Where it raises for one item, those that have not begun are left out, and the error is raised.
    """
    from rich.progress import track

    terminal = sys.stderr.isatty()
    if not terminal:
        print(title, file=sys.stderr)
    with ThreadPoolExecutor(workers, initializer=initializer) as pool:
        try:
            done = pool.map(function, items)
            return list(track(done, title, len(items), disable=not terminal))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[S], T], items: Iterable[S], most: int
) -> Iterator[Future[T]]:
    """Submit items to a pool and yield their futures in order, ``most`` ahead of the caller."""
    futures: deque[Future[T]] = deque()
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) > most:
            yield futures.popleft()
    yield from futures
