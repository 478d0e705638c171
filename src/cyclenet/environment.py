"""What a program finds around it, looked at once, before the first step.

A run either works as in a clean environment or says what is wrong before it begins.
"""

import ctypes
import os
import shutil
import sys
import tempfile
from pathlib import Path

RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK")
SLURM_RANKS = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
"""Variables from which Lightning takes the number of this process."""

PARENT = "CYCLENET_DDP"
"""Holds the number of the run's first process, so that those which it starts recognise it."""

MALLOC = {-1: 1 << 28, -2: 1 << 26, -3: 1 << 25, -8: 4}
"""Options of glibc's mallopt: bytes that each arena keeps (M_TRIM_THRESHOLD), that are taken at
once (M_TOP_PAD), and from which on a block is the system's own (M_MMAP_THRESHOLD, at its largest);
and the most arenas, which threads share (M_ARENA_MAX)."""

LONGEST_SOCKET = 107  # Bytes that the path of a socket may have.

SOCKET_NAME = len("/pymp-12345678/listener-12345678")
"""Bytes that multiprocessing adds to the folder of temporary files."""

DESCRIPTORS = 1024  # Open files that a training with loader processes may need.


def settle_streams() -> None:
    """Let names of any bytes be printed, and let a program run without a terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # It was closed before the program began.
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def settle_memory() -> None:
    """Let the C library keep up to 1 GiB of what is freed, where it is glibc.

    Each operation on a CPU frees some megabytes and asks for as many. What goes back to the system
    in between comes again 4 kB at a time, which can take as long as the operation. A user's own
    ``MALLOC_*`` or ``GLIBC_TUNABLES`` stand.
    """
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and not chosen:
        for option, value in MALLOC.items():
            mallopt(option, value)


def settle_home() -> None:
    """Give libraries a home of this process where the user's cannot be written.

    wandb and others would fail there, some only at the end of a training.
    """
    home = Path.home()
    if os.access(home, os.W_OK | os.X_OK):
        return
    other = tempfile.mkdtemp(prefix="cyclenet-home-")
    print(f"{home} cannot be written: libraries keep their files in {other}.", file=sys.stderr)
    if (home / ".netrc").is_file():
        os.environ.setdefault("NETRC", str(home / ".netrc"))
    os.environ["HOME"] = other


def settle_ranks(num_nodes: int, processes: int) -> None:
    """Remove variables that would make this process take itself for one of several.

    They are left over from another program, or number independent runs in one ``srun``.

    Args:
        num_nodes: number of machines.
        processes: processes of the run on all machines.

    Raises:
        ValueError: a launcher has started another number of processes.
    """
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if processes == 1:
        if by_torchrun and os.environ.get("WORLD_SIZE", "1") != "1":
            raise ValueError(
                f"torchrun has started {os.environ['WORLD_SIZE']} processes, but this run has one: "
                "set trainer.devices, or start it without torchrun."
            )
        several = os.environ.get("SLURM_NTASKS", "1") != "1"  # Each task is a run of its own.
        for name in (*RANKS, *(SLURM_RANKS if several else ())):
            os.environ.pop(name, None)
        return
    started = os.environ.get("WORLD_SIZE")
    if by_torchrun and started != str(processes):
        raise ValueError(
            f"torchrun has started {started} processes, but trainer.devices and trainer.num_nodes "
            f"make {processes}."
        )
    ours = os.environ.get(PARENT) == str(os.getppid())
    if not by_torchrun and not ours and num_nodes == 1:
        for name in RANKS:
            os.environ.pop(name, None)
    os.environ[PARENT] = str(os.getpid())


def loader_problem(workers: int, batch_bytes: int) -> str:
    """Say why loader processes could not work here, where they would hang or die; else "".

    Args:
        workers: loader processes of this run on this machine.
        batch_bytes: bytes of one batch.
    """
    if workers == 0 or sys.platform == "win32":
        return ""
    hint = "or set trainer.num_workers=0."
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) + SOCKET_NAME > LONGEST_SOCKET:
        return f"TMPDIR is too long for sockets ({folder}): set a shorter one, {hint}"
    if sys.platform == "linux" and Path("/dev/shm").is_dir():
        # Each process prepares two batches.
        free, needed = shutil.disk_usage("/dev/shm").free, 2 * workers * batch_bytes
        if free < needed:
            return (
                f"/dev/shm has {free / 1e6:.0f} MB free, and {workers} loader processes need "
                f"{needed / 1e6:.0f}: enlarge it (docker run --shm-size), {hint}"
            )
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft < DESCRIPTORS // 4:
        return f"ulimit -n is {soft}, too few open files for loader processes: raise it, {hint}"
    return ""
