"""A process that has imported what the commands import, and forks a copy of itself for each: it
saves seconds a command.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def serve() -> None:
    """Run commands from standard input, a JSON line each (script, words, cwd, env, output); answer
    with their exit codes.
    """
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            command(job)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def command(job: dict) -> None:
    """Become the command, as if it had been started by itself."""
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    tempfile.tempdir = None  # What was imported has looked at $TMPDIR already.
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [job["script"], *job["words"]]
    sys.path[0] = str(Path(job["script"]).parent)
    code = 1
    try:
        runpy.run_path(job["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_forked(
    name: str,
    words: list[str],
    cwd: Path,
    limit: float,
    prepare: Callable[[], None] = lambda: None,
    kill_after: float | None = None,
    **environment: str,
) -> tuple[int | None, str]:
    """Run a command of `src/` in a fork of this process; return its exit code and its output.

    Args:
        name: the command.
        words: its arguments.
        cwd: where it runs; ``output.log`` there gets what it prints.
        limit: seconds after which it is killed; the exit code is then None.
        prepare: is called in the new process before the command.
        kill_after: seconds after which it is killed on purpose (SIGKILL).
        environment: variables beside those of this process.
    """
    log = cwd / "output.log"
    log.unlink(missing_ok=True)
    script = Path(__file__).resolve().parents[1] / "src" / f"{name}.py"
    job = {"script": str(script), "words": words, "cwd": str(cwd), "output": str(log)}
    child = os.fork()
    if child == 0:
        os.setpgrp()
        prepare()
        command({**job, "env": {**os.environ, "OMP_NUM_THREADS": "1", **environment}})
    until = time.monotonic() + (limit if kill_after is None else kill_after)
    while True:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            code: int | None = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            code = None
            break
        time.sleep(0.002)
    return code, log.read_text(errors="replace") if log.exists() else ""


IMPORTED = (
    "cyclenet.runs.train",
    "cyclenet.runs.evaluate",
    "cyclenet.runs.predict",
    "cyclenet.runs.submission",
    "cyclenet.data.check",
    "cyclenet.lab.cost.tables",
    "cyclenet.lab.explain.visualize",
    "cyclenet.lab.report.write",
    "cyclenet.lab.sweeps.after",
)
"""Modules that commands import, and with them all that takes long."""


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    serve()
