"""`jaxsci batch` on a real SLURM, which the test starts on this machine: a job that is cancelled loses nothing.

It needs `apt-get install slurm-wlm munge` and to be root, because slurmd asks for that; elsewhere it is skipped. munge
runs with a key of its own beside any that is there, in the folder of the test.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from test_batches_of_configs import FIT
from written import MODELS, write_csv

ROOT = Path(__file__).resolve().parents[2]
ITEMS = 24

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctl}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=6000 State=UNKNOWN
PartitionName=p Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

# so that a job is cancelled while it works
MODELS_SLOW = (
    MODELS
    + """
import time

class Slow(Decay):
    def __call__(self, t):  # which is called to check each item
        time.sleep(0.5)
        return Decay.__call__(self, t)
"""
)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """munged, slurmctld and slurmd of one node, and the environment in which sbatch finds them."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"{', '.join(missing) or 'root'} is needed: apt-get install slurm-wlm munge, as root")
    # of this depth, because the path of a socket has at most 107 characters
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    host, conf = socket.gethostname().split(".")[0], folder / "slurm.conf"
    ports = {"ctl": free_port(), "daemon": free_port()}
    conf.write_text(CONF.format(host=host, folder=folder, cpus=os.cpu_count(), **ports))
    environment = os.environ | {"SLURM_CONF": str(conf)}
    paths = [f"--{name}={folder}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "socket"))]
    paths += [
        f"--{name}={folder}/munge.{end}"
        for name, end in (("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))
    ]
    commands = (
        ["munged", "--foreground", "--force", *paths],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf)],
    )
    running = []
    with (folder / "out.txt").open("w") as out:
        try:
            for words in commands:
                running.append(subprocess.Popen(words, env=environment, stdout=out, stderr=out))
                time.sleep(2)
            wait_for(lambda: "idle" in said(environment, "sinfo", "-h", "-o", "%t"), 60, folder)
            yield environment
        finally:
            subprocess.run(["scancel", "--user=root"], env=environment, check=False, timeout=20)
            for process in reversed(running):
                process.terminate()
                process.wait(20)


def said(environment, *words):
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=30).stdout


def wait_for(fact, seconds, folder):
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
        time.sleep(0.5)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A manifest of a pattern of files, and what one worker of this machine makes of it."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "my_models.py").write_text(MODELS_SLOW)
    (folder / "fit.toml").write_text(FIT.replace("Decay", "Slow"))
    write_csv(folder / "a.csv")
    (folder / "many").mkdir()
    for seed in range(ITEMS):
        write_csv(folder / "many" / f"run-{seed}.csv", seed)
    words = ['[[each]]\nconfig = "fit.toml"', 'files = "many/*.csv"', 'data.0.file = "{file}"']
    (folder / "items.toml").write_text("\n".join(words))
    started = start(folder, os.environ, "--out", "local")
    assert started.wait(400) == 0
    return folder


def start(folder, environment, *words, before=()):
    command = [*before, sys.executable, "-m", "jaxsci", "batch", "items.toml", "--import", "my_models.py", *words]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "PYTHONPATH": path}
    return subprocess.Popen(command, cwd=folder, env={**environment, **cache}, start_new_session=True)


def solutions(out):
    return {path.parents[1].name: path.read_bytes() for path in out.glob("items/*/solutions/*.eqx")}


def done(out):
    return len(list(out.glob("items/*/item.jsci")))


@pytest.mark.slow
def test_a_cancelled_job_loses_nothing(slurm, place):
    out = place / "cancelled"
    loopback = slurm | {"DASK_JOBQUEUE__SLURM__INTERFACE": "lo"}
    words = ("--executor", "slurm", "-j", "2", "--memory", "2GB", "--sbatch=--requeue", "--out", "cancelled")
    batch = start(place, loopback, *words)
    wait_for(lambda: done(out) >= 2 or batch.poll() is not None, 200, out)
    jobs = said(slurm, "squeue", "-h", "-t", "running", "-o", "%i").split()
    before = done(out)
    said(slurm, "scancel", jobs[0])
    assert batch.wait(300) == 0
    print(f"cancelled job {jobs[0]} of {jobs} with {before} of {ITEMS} done")
    assert 0 < before < ITEMS
    assert len(jobs) == 2
    assert solutions(out) == solutions(place / "local")
    assert len(solutions(out)) == ITEMS
    assert not said(slurm, "squeue", "-h", "-t", "running"), "no job is left behind"


@pytest.mark.slow
def test_processes_started_together(slurm, place):
    batch = start(place, slurm, "--spmd", "--out", "together", before=("srun", "-n", "2"))
    assert batch.wait(300) == 0
    assert solutions(place / "together") == solutions(place / "local")
    assert json.loads((place / "together" / "results.json").read_text())["counts"]["succeeded"] == ITEMS


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_batch_that_is_stopped_goes_on(place, how):
    """Ctrl-C reaches all processes of a terminal; a kill that of the batch alone."""
    out = place / how.name
    batch = start(place, os.environ, "-j", "2", "--out", how.name)
    wait_for(lambda: done(out) >= 2 or batch.poll() is not None, 200, out)
    if how == signal.SIGINT:
        os.killpg(batch.pid, how)
        assert batch.wait(60) == 130
        results = [member["result"] for member in json.loads((out / "results.json").read_text())["members"]]
        assert results.count("not_run") == ITEMS - done(out)
        assert not list((out / "items").glob(".*")), "nothing is left of items that were cut short"
    else:
        batch.kill()
        batch.wait()
    assert 0 < done(out) < ITEMS
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("items/*/item.jsci")}
    time.sleep(3)  # workers notice that they are alone
    assert done(out) <= len(stamps) + 2
    assert start(place, os.environ, "-j", "2", "--out", how.name, "--resume").wait(300) == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert solutions(out) == solutions(place / "local")
