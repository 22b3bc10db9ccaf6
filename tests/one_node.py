"""A Slurm cluster of this machine alone, where its programs are installed and this is root."""

import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol")
CONF = """\
ClusterName=rbft
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={next_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def is_there() -> bool:
    """Whether a cluster can be started here."""
    return all(map(shutil.which, PROGRAMS)) and os.name == "posix" and os.geteuid() == 0


@contextmanager
def started(folder: Path, port: int) -> Generator[dict[str, str], None, None]:
    """Yields the environment in which commands of Slurm speak to it; all of it ends with this."""
    for name in ("spool", "state"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = os.uname().nodename
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, port=port, next_port=port + 1, host=host))
    environment = {"SLURM_CONF": str(conf)}
    munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    daemons = [Popen(munge, stdout=DEVNULL, stderr=DEVNULL)]
    try:
        time.sleep(1.0)
        for words in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "localhost"]):
            daemons.append(Popen(words, env=os.environ | environment, stdout=DEVNULL, stderr=DEVNULL))
        deadline = time.monotonic() + 60
        while "idle" not in _state(environment):
            assert time.monotonic() < deadline, (folder / "ctld.log").read_text()
            time.sleep(0.5)
        yield environment
    finally:
        _cancel_all(os.environ | environment)
        for daemon in reversed(daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
            daemon.wait()


def _cancel_all(environment: dict[str, str]) -> None:
    """End every job, and wait until its processes are gone: those of a job outlive the daemons."""
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, check=False)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        left = subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True, text=True, check=False)
        if not left.stdout.strip():
            return
        time.sleep(0.5)


def _state(environment: dict[str, str]) -> str:
    words = ["sinfo", "--noheader", "--format=%T"]
    return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False).stdout
