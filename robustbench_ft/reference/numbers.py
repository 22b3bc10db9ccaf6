"""Published zero-shot numbers by open_clip model, suite and split, with what they were measured on. Torch-free.

`open_clip_zero_shot.csv`: nine columns of docs/openclip_results.csv of mlfoundations/open_clip@89fb801, as they stand
there. They were made by mlfoundations/datacomp@2d7bde7 (tasklist.yml: sizes, classes and metrics; eval_utils), which
takes open_clip's own transform. `lipsum_ft_zero_shot.csv`: README.md of cs-giung/lipsum-ft@1331873, zero-shot logs.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from robustbench_ft.prompts import Task, imagenet_classes, openai_templates

OPEN_CLIP = "mlfoundations/open_clip@89fb801, docs/openclip_results.csv"
LIPSUM = "cs-giung/lipsum-ft@1331873, README.md"
QUICK = "-quickgelu"


@dataclass(frozen=True)
class Reference:
    """One published number of a zero-shot model on one split."""

    model: str  # open_clip's name
    pretrained: str  # and tag
    suite: str
    split: str
    value: float  # in [0, 1]
    n: int  # images it was measured on; 0: not said
    classes: int  # it was scored among so many
    source: str
    metric: str = "accuracy"
    prompts: str = ""  # in words
    allowance: float = 0.003  # in [0, 1]: what may differ beside sampling
    reason: str = "for other versions of Pillow, torch and GPUs"  # of the allowance
    task: Task | None = None  # the prompts themselves, where they are known
    excludes: tuple[str, ...] = ()  # options of the suite under which it is another measurement


@dataclass(frozen=True)
class _Column:
    """What a column of open_clip's table was measured on."""

    suite: str
    split: str
    n: int
    classes: int
    metric: str = "accuracy"
    prompts: str = "OpenAI's 80 templates, open_clip's class names"  # LAION-AI/CLIP_benchmark@48de38c has the same
    allowance: float = Reference.allowance
    reason: str = Reference.reason


_UNREAD = "prompts are those of djghosh/wds_wilds-{}_test, which were not compared with ours"
COLUMNS: Mapping[str, _Column] = {
    "ImageNet 1k": _Column("imagenet", "test", 50_000, 1_000),
    "ImageNet v2": _Column("imagenet", "v2", 10_000, 1_000),
    "ImageNet-R": _Column("imagenet", "r", 30_000, 200),
    "ImageNet-A": _Column("imagenet", "a", 7_500, 200),
    "ImageNet Sketch": _Column("imagenet", "sketch", 50_889, 1_000),
    "ObjectNet": _Column(
        "imagenet", "objectnet", 18_574, 113,
        prompts="113 names of ObjectNet's own; ours: the best of the ImageNet names that a class maps to",
        allowance=0.015,
        reason="for other class names: with ImageNet's, ViT-B-16 has 54.2 in VRF's Table 2, and 55.3 in open_clip's",
    ),
    "iWildCam": _Column(
        "wilds-iwildcam", "test", 42_791, 182, "macro_f1", _UNREAD.format("iwildcam"), 0.01,
        "for other prompts, if they differ: FLYP's zero-shot row for ViT-B-16 is the same 11.0",
    ),
    "Camelyon17": _Column(
        "wilds-camelyon17", "test", 85_054, 2, prompts=_UNREAD.format("camelyon17"), allowance=0.05,
        reason="for other prompts: two classes hang on a few words",
    ),
    "FMoW": _Column(
        "wilds-fmow", "test", 22_108, 62, "worst_group:region", _UNREAD.format("fmow"), 0.02,
        "for other prompts, if they differ",
    ),
}  # fmt: skip
# DataComp's evaluator leaves out a region called 'Other', but its regions have numbers and no names, so that region
# counts. It holds 4 images: a number that is a multiple of 1/4 is its own, and says nothing about the five others.
OTHER_REGION = 0.25
LIPSUM_N = {"test": 50_000, "v2": 10_000, "r": 30_000, "a": 7_500, "sketch": 50_889}  # of imagenet
LIPSUM_ALLOWANCE = 0.021  # the largest gap between this README and open_clip's table, ImageNet-A: 52.00 and 49.95
LIPSUM_REASON = "for pixels: the authors scored arrays of their own making, and on ImageNet differ by as much (A)"


def key_of(name: str, pretrained: str, like: str = "") -> tuple[str, str]:
    """(open_clip name, tag) whose numbers a model should have; `like` names the tag of weights from a file or folder.

    `like` is a tag, or NAME:TAG where the model's name is not open_clip's.
    """
    first, colon, tag = like.partition(":")
    if not like:
        return name, pretrained
    return (first, tag) if colon else (name, first)


def find(key: tuple[str, str], suite: str) -> dict[str, list[Reference]]:
    """Split -> published numbers of a model on it, the one with the least allowance first; empty where there is none.

    `suite` may carry options. A name with '-quickgelu' is the plain name where only that is listed: tags decide.
    """
    found: dict[str, list[Reference]] = {}
    for name in dict.fromkeys((key[0], key[0].removesuffix(QUICK))):
        for reference in every().get((name, key[1]), ()):
            if reference.suite == suite.partition("+")[0]:
                found.setdefault(reference.split, []).append(reference)
        if found:
            break
    return {split: sorted(some, key=lambda one: one.allowance) for split, some in found.items()}


@lru_cache
def every() -> Mapping[tuple[str, str], Sequence[Reference]]:
    """(open_clip name, tag) -> all its numbers."""
    found: dict[tuple[str, str], list[Reference]] = {}
    for reference in (*_open_clip(), *_lipsum()):
        found.setdefault((reference.model, reference.pretrained), []).append(reference)
    return found


def _open_clip() -> list[Reference]:
    imagenet = Task(imagenet_classes(), openai_templates())
    found: list[Reference] = []
    for row in _rows("open_clip_zero_shot.csv"):
        for name, column in COLUMNS.items():
            value = float(row[name])
            if name == "FMoW" and value % OTHER_REGION == 0:
                continue
            task = imagenet if column.suite == "imagenet" and column.split != "objectnet" else None
            found.append(Reference(
                row["name"], row["pretrained"], column.suite, column.split, value, column.n, column.classes, OPEN_CLIP,
                column.metric, column.prompts, column.allowance, column.reason, task,
            ))  # fmt: skip
    return found


def _lipsum() -> list[Reference]:
    classes, names = {"domainnet": 345, "imagenet": 1_000}, "DomainNet's folders, underscores included"
    found: list[Reference] = []
    for row in _rows("lipsum_ft_zero_shot.csv"):
        suite, split = row["suite"], row["split"]
        found.append(Reference(
            row["name"], row["pretrained"], suite, split, float(row["accuracy"]),
            LIPSUM_N[split] if suite == "imagenet" else 0, 200 if split in ("r", "a") else classes[suite], LIPSUM,
            prompts=f"OpenAI's 80 templates, class names of {names if suite == 'domainnet' else 'OpenAI'}",
            allowance=LIPSUM_ALLOWANCE, reason=LIPSUM_REASON,
            excludes=("clean-prompts",) if suite == "domainnet" else (),
        ))  # fmt: skip
    return found


def _rows(name: str) -> list[dict[str, str]]:
    with Path(__file__).with_name(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
