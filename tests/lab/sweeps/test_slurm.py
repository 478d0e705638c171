"""Sweeps, DDP and requeueing on a real SLURM of one node, which the tests start on the loopback
interface and end.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, TINY

pytestmark = pytest.mark.slurm
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=15
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=0,bf_interval=5
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
WORDS = [
    *TINY,
    "dataset.scenes_train=16",
    "dataset.scenes_val=3",
    "dataset.scenes_size=[64,96]",
    "trainer.max_epochs=2",
]
LAUNCHER = [
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.partition=debug",
    "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.timeout_min=10",
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Environment in which SLURM's commands find the cluster."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing or os.getuid() != 0:
        pytest.fail(
            "This needs root and SLURM's programs (slurm-wlm, munge); missing: "
            f"{', '.join(missing) or 'root'}."
        )
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), ports=ports, folder=folder))
    environment = {**os.environ, "SLURM_CONF": str(conf), "OMP_NUM_THREADS": "1"}
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    munged = subprocess.run(["pgrep", "-x", "munged"], capture_output=True).returncode == 0
    commands = [] if munged else [["runuser", "-u", "munge", "--", "munged", "--foreground"]]
    daemons = []
    try:
        for command in [*commands, ["slurmctld", "-D", "-c"], ["slurmd", "-D"]]:
            log = (folder / f"{command[0]}.log").open("w")
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(1)
        until = time.monotonic() + 60
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "-h"], env=environment, capture_output=True, text=True
            ).stdout
        ):
            assert time.monotonic() < until, "".join(
                path.read_text() for path in folder.glob("*.log")
            )
            time.sleep(0.5)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment)
        time.sleep(1)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)


def train(*words, cwd, environment):
    command = [sys.executable, str(ROOT / "src/train.py"), *words]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(process):
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 0, text
    return text


def logs(cwd):
    return "\n".join(
        path.read_text() for pattern in ("*_log.out", "job.log") for path in cwd.rglob(pattern)
    )


def results(cwd):
    return [json.loads(path.read_text()) for path in sorted(cwd.glob("runs/*/*/result.json"))]


def wait_for_step(cwd, step):
    until = time.monotonic() + 200
    while True:
        for path in cwd.glob("runs/*/*/progress.json"):
            if json.loads(path.read_text())["step"] >= step:
                return
        assert time.monotonic() < until, logs(cwd)
        time.sleep(0.1)


def test_a_sweep_of_two_jobs(slurm, tmp_path):
    text = output_of(train("-m", "seed=0,1", *WORDS, *LAUNCHER, cwd=tmp_path, environment=slurm))
    assert [result["status"] for result in results(tmp_path)] == ["finished"] * 2, text + logs(
        tmp_path
    )
    assert "Report: " in text


def test_a_job_of_two_tasks(slurm, tmp_path):
    words = ["-m", *WORDS, *LAUNCHER, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    text = output_of(train(*words, cwd=tmp_path, environment=slurm))
    assert [result["status"] for result in results(tmp_path)] == ["finished"], text + logs(tmp_path)
    assert "2 process(es)" in logs(tmp_path)


def test_a_requeued_job_of_a_sweep_goes_on(slurm, tmp_path):
    process = train(
        "-m", *WORDS, "trainer.max_epochs=60", *LAUNCHER, cwd=tmp_path, environment=slurm
    )
    wait_for_step(tmp_path, 20)
    # What SLURM sends before the time limit.
    subprocess.run(["scancel", "--signal=USR2", "--user=root"], env=slurm, check=True)
    output_of(process)
    assert [result["status"] for result in results(tmp_path)] == ["finished"], logs(tmp_path)
    assert "Stopped by SIGUSR2" in logs(tmp_path) and "Continuing from" in logs(tmp_path)


def test_a_requeued_batch_script_goes_on(slurm, tmp_path):
    words = [
        *WORDS,
        "trainer.max_epochs=60",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
    ]
    command = f"{sys.executable} {ROOT / 'src/train.py'} {' '.join(words)}"
    script = f"#!/bin/bash\nsrun --kill-on-bad-exit=1 {command}\n"
    (tmp_path / "job.sh").write_text(script)
    options = [
        "--ntasks-per-node=2",
        "--requeue",
        "--open-mode=append",
        "--output=job.log",
        "--signal=USR1@60",
        "--time=20",
    ]
    subprocess.run(["sbatch", *options, "job.sh"], cwd=tmp_path, env=slurm, check=True)
    wait_for_step(tmp_path, 20)
    subprocess.run(["scancel", "--signal=USR1", "--user=root"], env=slurm, check=True)
    until = time.monotonic() + 400
    while not any(result["status"] == "finished" for result in results(tmp_path)):
        assert time.monotonic() < until, logs(tmp_path)
        time.sleep(1)
    assert "Stopped by SIGUSR1" in logs(tmp_path) and "Continuing from" in logs(tmp_path)
