"""What `rb.diagnose` returns. Torch-free."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from robustbench_ft.notebook_tables import frame, html

from . import report
from .points import Diagnosis


@dataclass(frozen=True)
class Diagnoses:
    """How far tuned models are from zero-shot, one diagnosis for each suite and pre-trained model."""

    found: tuple[Diagnosis, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Diagnosis]:
        return iter(self.found)

    def __getitem__(self, place: int) -> Diagnosis:
        return self.found[place]

    def table(self, pandas: bool = False) -> Any:
        """One plain dict per model: ID, mean OOD and its change from zero-shot, and each measure's mean over shifts."""
        rows = [row for one in self for row in report.rows(one)]
        return frame(rows) if pandas else rows

    def markdown(self) -> str:
        """What `rbft diagnose --format markdown` prints."""
        return "\n".join(map(report.markdown, self))

    def _repr_html_(self) -> str:
        return "\n".join(html(text) for one in self for text in report.sections(one))
