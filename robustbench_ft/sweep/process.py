"""Which process this is, and whether another one still lives. Torch-free."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process anywhere. Its number is used again one day, so its start tells it from later ones of that number."""

    host: str  # for people
    machine: str  # host, boot and, in containers, the space in which process numbers count
    pid: int
    started: str  # as the system counts it; '' where it does not tell

    @property
    def text(self) -> str:
        """'host:pid'."""
        return f"{self.host}:{self.pid}"

    @property
    def is_local(self) -> bool:
        """Whether it is of this machine, so that `lives` can tell."""
        return bool(self.machine) and self.machine == _machine() and os.name != "nt"

    @property
    def lives(self) -> bool:
        """Whether a process of this machine is still there; one that only waits to be collected is not."""
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:  # of another user, and maybe hidden
            return started(self.pid) in ("", self.started)
        return started(self.pid) == self.started


def this() -> Process:
    """The process that asks."""
    return Process(socket.gethostname(), _machine(), os.getpid(), started(os.getpid()))


@lru_cache
def _machine() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def started(pid: int) -> str:
    """When a process of this machine was started; '' for one that is no more, and where the system does not tell."""
    if sys.platform.startswith("linux"):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]  # ticks since boot
    with suppress(OSError, subprocess.SubprocessError):
        words = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(words, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    return ""
