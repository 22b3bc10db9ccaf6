"""Several processes for one command: started here, by torchrun or by Slurm's srun; how they meet, and how they end."""

import io
import os
import re
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .errors import DiedError, RbftError, StoppedError

if TYPE_CHECKING:
    import torch

    from .ranks import Ranks

LAUNCHED = "RBFT_LAUNCHED"  # set for workers that `start_workers` watches, and so speaks for
MEET = timedelta(minutes=30)  # the longest that the first waits for the last to come
PORTS = range(20_000, 40_000)  # of which a Slurm job takes one
DIED = 1  # exit code where a worker died, or has a fault
USER = 2  # what the user can mend
LOST = 3  # of a rank that could not go on without another, and has not said so
STOPPED = 130  # a signal ended all in good order


@dataclass(frozen=True)
class Place:
    """Which of how many workers this process is, and where they meet."""

    rank: int
    world: int
    local: int  # its number on this machine
    neighbours: int  # workers on this machine
    address: str
    port: int
    hosts: bool  # whether it opens the port; with torchrun, the agent does


def place(environment: Mapping[str, str]) -> Place | None:
    """What torchrun or srun says of this process; None where it is alone. Raises `RbftError` for half a description.

    In a batch script of Slurm, outside srun, a process is alone.
    """
    if int(environment.get("WORLD_SIZE", "0")) > 1:
        names = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in names if name not in environment]:
            raise RbftError(f"WORLD_SIZE is set, but {', '.join(missing)} is not; start it with torchrun or --devices")
        rank, local, world = (int(environment[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        neighbours = int(environment.get("LOCAL_WORLD_SIZE", world))
        hosts = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        return Place(rank, world, local, neighbours, environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), hosts)
    if int(environment.get("SLURM_STEP_NUM_TASKS", "0")) > 1:
        rank, local, world = (int(environment[f"SLURM_{name}"]) for name in ("PROCID", "LOCALID", "STEP_NUM_TASKS"))
        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "localhost")
        number = 16 * int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0"))
        neighbours = int(environment.get("SLURM_STEP_TASKS_PER_NODE", str(world)).partition("(")[0].partition(",")[0])
        return Place(
            rank, world, local, neighbours, environment.get("MASTER_ADDR", first_node(nodes)),
            int(environment.get("MASTER_PORT", PORTS[number % len(PORTS)])), rank == 0,
        )  # fmt: skip
    return None


def first_node(nodes: str) -> str:
    """The first of a Slurm node list: 'gpu[07-09,12],cpu1' -> 'gpu07'."""
    found = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\])?([^,]*)", nodes)
    assert found is not None, f"a list of nodes, not '{nodes}'"
    return "".join(part or "" for part in found.groups())


def start_workers(n: int, words: list[str]) -> int:
    """Run `rbft WORDS` in `n` processes on this machine, by torch's elastic launcher; returns the exit code.

    Raises `DiedError` where a worker died without a word. Signals go to all of them.
    """
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # torch reports each end at length
    os.environ[LAUNCHED] = "1"
    newer: Any = {"shutdown_timeout": 120} if "shutdown_timeout" in LaunchConfig.__dataclass_fields__ else {}
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=n, run_id=str(os.getpid()), rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, local_addr="localhost", **newer,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "robustbench_ft", *words)
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        return _verdict({rank: failure.exitcode for rank, failure in error.failures.items()}, n)
    return 0


def _verdict(codes: Mapping[int, int], n: int) -> int:
    """The exit code for all, from those of the ranks that failed. Raises `DiedError` where none of them has spoken.

    A negative code is a signal; SIGTERM is also what the launcher sends to those that are left.
    """
    killed = {rank: signal.Signals(-code) for rank, code in codes.items() if code < 0}
    spoken = [code for code in codes.values() if code in (DIED, USER, STOPPED)]
    by_others = {rank: number for rank, number in killed.items() if number != signal.SIGTERM}
    if spoken and not by_others:
        return max(spoken)
    ended = [f"rank {rank} of {n} was ended by {number.name}" for rank, number in (by_others or killed).items()]
    raise DiedError(
        f"{ended[0] if ended else f'one of {n} ranks ended'}, and so did all: nothing is lost, run the same command "
        "again to resume from the last checkpoint"
    )


@contextmanager
def joined(where: Place | None, device: str) -> "Generator[tuple[torch.device, Ranks], None, None]":
    """Meet the others, and be silent but for the first; the first that fails says so for all.

    `device` is what the user asked for; yields this rank's. Raises `DiedError` for a failure that is not the user's,
    and exits without a word where another spoke.
    """
    from torch import distributed

    from . import environment, ranks

    if where is None:
        yield environment.choose_device(device), ranks.Ranks()
        return
    stderr = sys.stderr
    store = distributed.PrefixStore("rbft", _store(where))  # pyright: ignore
    with _silent(where.rank > 0):
        try:
            own, shared = _device(where, device)
            _share_cores(where)
            found = ranks.start(own, where.rank, where.world, store, shared)
            yield own, found
            found.wait()
            distributed.destroy_process_group()
        except StoppedError:  # all stop at once
            if where.rank:
                raise SystemExit(STOPPED) from None
            raise
        except ranks.LostRankError as error:
            if LAUNCHED in os.environ or not _is_first(store):
                raise SystemExit(LOST) from error
            raise DiedError(str(error)) from error
        except RbftError as error:
            if not _is_first(store):
                raise SystemExit(USER) from error
            if where.rank:
                stderr.write("".join(f"rbft: {line}\n" for line in str(error).splitlines()))
                raise SystemExit(USER) from error
            raise
        except Exception as error:  # a fault, e.g. of a method: one traceback is enough
            if not _is_first(store):
                raise SystemExit(DIED) from error
            raise


def _device(where: Place, asked: str) -> "tuple[torch.device, bool]":
    """The device of this rank, and whether all have the same GPU: 'cuda' is one for each, 'cuda:0' one for all."""
    import torch

    from . import environment

    device = environment.choose_device(asked)
    if device.type == "cpu":
        return device, False
    shared = ":" in asked
    if not shared and where.neighbours > torch.cuda.device_count():
        raise RbftError(
            f"{where.neighbours} processes on this machine and {torch.cuda.device_count()} GPUs: start as many as "
            "there are, or take --device cpu"
        )
    own = device if shared else torch.device("cuda", where.local)
    torch.cuda.set_device(own)
    return own, shared


def _share_cores(where: Place) -> None:
    """Compute with a share of this machine's cores, unless OMP_NUM_THREADS says how many."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // where.neighbours))


def _is_first(store: Any) -> bool:
    """Whether no other has failed before; True where nobody can tell any more."""
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:
        return True


def _store(where: Place) -> Any:
    from torch import distributed

    try:
        meet: Any = getattr(distributed, "TCPStore")  # noqa: B009 (not in its __all__)
        return meet(where.address, where.port, where.world, where.hosts, timeout=MEET)
    except (RuntimeError, ValueError) as error:
        raise RbftError(
            f"rank {where.rank} of {where.world} found nobody at {where.address}:{where.port}; set MASTER_ADDR and "
            "MASTER_PORT to a machine and a free port that all can reach"
        ) from error


@contextmanager
def _silent(yes: bool) -> Generator[None, None, None]:
    if not yes:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(io.StringIO()):
        yield
