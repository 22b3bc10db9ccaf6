"""Runs the parity tests and writes what they measured to docs/parity.md: `python tests/parity.py`."""

import sys
from importlib.metadata import version
from pathlib import Path

import golden
import pytest
from golden import Claim

HERE = Path(__file__).parent
TARGET = HERE.parent / "docs" / "parity.md"
PARTS = {
    "test_parity_forward.py": "Without training",
    "test_parity_methods.py": "Step by step",
    "test_parity_penalties.py": "Penalties on the distance from the pre-trained model",
    "test_parity_flyp_kin.py": "StarFT and CaRot",
    "test_parity_layers.py": "Some layers, and parameters beside them",
    "test_parity_pulls.py": "Pulls towards the pre-trained weights",
    "test_parity_merges.py": "Soups, merges and mixtures",
    "test_parity_shots.py": "Deep prompts, and multipliers that grow",
}
QUIET = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # torch came first
HEADER = """\
# Parity with the official implementations

Written by `python tests/parity.py`, which runs the parity tests and keeps every number that they compare: the largest
error observed on a CPU in float32, and the tolerance that the test allows. Where the golden numbers come from is in
`tests/vectors/README.md`. Made with torch {torch}, open_clip {open_clip_torch}, Pillow {pillow}, numpy {numpy}.

"rel" is relative to the golden number, "rel L2" is the norm of the difference over the norm of the golden tensor,
"theta5 - theta0" is what five optimiser updates have changed. The key third of attention biases, whose gradient is
rounding noise, is left out. Runs are called as in `tests/vectors/hyperparameters.json`.
"""
WRONG = """\
## What these tests would notice

Versions that are wrong on purpose. The largest deviation from the golden numbers must exceed the tolerance.
"""


def table(claims: list[Claim]) -> str:
    """One line per quantity and reference; the worst where a quantity was measured more than once."""
    worst: dict[tuple[str, str], Claim] = {}
    for claim in claims:
        key = (claim.quantity, claim.reference)
        worst[key] = max(worst.get(key, claim), claim, key=lambda c: c.error)
    lines = ["| quantity | reference | max error observed | tolerance |", "|---|---|---|---|"]
    for claim in worst.values():
        lines.append(f"| {claim.quantity} | {claim.reference} | {_number(claim.error)} | {_number(claim.tolerance)} |")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def main() -> int:
    parts: list[str] = []
    wrong: list[Claim] = []
    for file, title in PARTS.items():
        golden.CLAIMS.clear()
        code = pytest.main([*QUIET, str(HERE / file)])
        if code:
            return int(code)
        right = [claim for claim in golden.CLAIMS if not claim.wrong]
        parts.append(f"## {title}\n\n{table(right)}")
        wrong += [claim for claim in golden.CLAIMS if claim.wrong]
    text = "\n".join(
        [
            HEADER.format(**{name: version(name) for name in ("torch", "open_clip_torch", "pillow", "numpy")}),
            *parts,
            f"{WRONG}\n{table(wrong)}",
        ]
    )
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
