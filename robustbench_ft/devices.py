"""How a cell is fitted on several devices, or on a small one. It is no part of the cell: it moves rounding alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .cell import Cell
from .clip import Clip
from .errors import RbftError
from .memory import MicroBatch
from .method import Candidates
from .ranks import Ranks

AUTO = -1  # value of `Devices.micro_batch`


@dataclass(frozen=True)
class Devices:
    """What `--devices`, `--micro-batch`, `--grad-checkpointing` and `--low-memory` ask for."""

    ranks: Ranks = field(default_factory=Ranks)  # the processes that fit the same cells together
    micro_batch: int = 0  # examples in one pass; 0: what the recipe says, `AUTO`: as many as fit
    grad_checkpointing: bool = False
    low_memory: bool = False
    found: dict[tuple[str, str], MicroBatch] = field(default_factory=dict[tuple[str, str], MicroBatch])

    def micro_batch_of(self, cell: Cell) -> MicroBatch:
        """Of one cell; with `AUTO`, what fits is found out once for all cells of one model and method."""
        if self.micro_batch != AUTO:
            return MicroBatch(self.micro_batch)
        return self.found.setdefault((cell.model.label, cell.method), MicroBatch(auto=True))

    def prepare(self, clip: Clip) -> None:
        """Trade time for memory where that is asked for. Raises `RbftError` for a model that cannot be cut."""
        if self.grad_checkpointing:
            clip.checkpoint_gradients()
        flag = "--devices" if self.ranks.world > 1 else "--micro-batch" if self.micro_batch else ""
        if flag and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in clip.modules()):  # pyright: ignore
            raise RbftError(
                f"{flag}: this model has batch normalisation, whose statistics are of the examples that pass at once; "
                "leave it out, or take a model without"
            )

    def check(self, model: Candidates) -> None:
        """Make sure that all ranks will answer alike; of candidates that are more than weights, nothing is compared."""
        for name in model.members if self.ranks.world > 1 else ():
            if isinstance(made := model.use(name), Clip):
                self.ranks.check_same(made.state_dict(), f"of candidate {name}")

    def for_record(self, micro_batch: MicroBatch) -> Mapping[str, Any]:
        """What env.json says of it; nothing where one device did the work as it comes."""
        ranks = self.ranks
        said: dict[str, Any] = {"devices": {"world": ranks.world, "backend": ranks.kind}} if ranks.world > 1 else {}
        if self.micro_batch:
            said["micro_batch"] = {"asked": "auto" if micro_batch.auto else micro_batch.size, "used": micro_batch.size}
        return said | {name: True for name in ("grad_checkpointing", "low_memory") if getattr(self, name)}
