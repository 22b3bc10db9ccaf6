"""Damaged inputs of every kind, by hypothesis: `python tests/fuzz.py --seconds 600`.

Whatever a file or a flag holds, what reads it ends well or raises `RbftError` in one line; anything else is a
finding and is printed with the input. The past findings stand in test_fuzz.py and are run with the other tests.
"""

import argparse
import copy
import faulthandler
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import made
import tiny
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

SLOW = 20.0  # seconds after which an input counts as a hang
PLAN = 'method = ["ft", "wise-ft"]\nsuite = "shapes"\nseeds = "0-1"\n[set]\nlr = [1e-4, 3e-4]\n"wise-ft.alpha" = 0.5\n'
SUITE = 'name = "cups"\ntrain = "all.csv"\nval = 1\ntest = 1\ngroups = ["camera"]\n[shifts]\nnight = "night"\n'
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**70, 10**400, 0.5, -0.0, float("inf"), float("nan"), "", "x", "..", "../../x", "\0", "=1",
    "\ud800", "a" * 5000, [], {}, [[]], [None], {"x": 1}, ["x"] * 3,
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    path: Path  # of the file that is damaged
    read: Callable[[], object]
    json: bool = False

    @property
    def whole(self) -> bytes:
        return self.path.read_bytes()


def damaged_bytes(whole: bytes) -> st.SearchStrategy[bytes]:
    """Some bytes changed, cut, doubled or put in."""
    places = st.integers(0, max(0, len(whole) - 1))
    flips = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)

    def flipped(changes: list[tuple[int, int]]) -> bytes:
        found = bytearray(whole)
        for place, value in changes:
            if found:
                found[place] = value
        return bytes(found)

    cut = places.map(lambda k: whole[:k])
    doubled = st.tuples(places, places).map(lambda ab: whole[: ab[0]] + whole[min(ab) : max(ab)] + whole[ab[0] :])
    put = st.tuples(places, st.binary(max_size=20)).map(lambda kb: whole[: kb[0]] + kb[1] + whole[kb[0] :])
    words = st.tuples(places, st.text(max_size=12)).map(
        lambda kt: whole[: kt[0]] + kt[1].encode("utf-8", "surrogatepass") + whole[kt[0] :]
    )
    return st.one_of(flips.map(flipped), cut, doubled, put, words)


def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values in a nest of JSON."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path, *(place for key, one in inner for place in places_of(one, (*path, key)))]


def damaged_json(whole: bytes) -> st.SearchStrategy[bytes]:
    """One or two values replaced, removed or moved."""
    content = json.loads(whole)
    places = places_of(content)
    odd = st.one_of(st.sampled_from(VALUES), st.text(max_size=8), st.integers(), st.floats())
    change = st.tuples(st.sampled_from(places), st.sampled_from(["put", "remove", "twice"]), odd)

    def changed(changes: list[tuple[tuple[Any, ...], str, Any]]) -> bytes:
        found = copy.deepcopy(content)
        for path, how, value in changes:
            try:
                holder = found
                for key in path[:-1]:
                    holder = holder[key]
                if not path:
                    found = value
                elif how == "put":
                    holder[path[-1]] = value
                elif how == "remove":
                    del holder[path[-1]]
                elif isinstance(holder, list):
                    holder.append(holder[path[-1]])
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took its place away
        return json.dumps(found).encode("utf-8", "surrogatepass")

    return st.lists(change, min_size=1, max_size=2).map(changed)


def read_runs(folder: Path) -> None:
    from robustbench_ft.claims import bundle
    from robustbench_ft.compare import report
    from robustbench_ft.record import store

    records = store.find_records([folder])
    for table in report.tables(records):
        report.markdown(table)
    for record in records:
        bundle.from_record(record)


def read_boards(folder: Path) -> None:
    from robustbench_ft.board import build
    from robustbench_ft.claims import audit

    audit.audit_all(folder)
    build.files(folder, "shapes")


def read_suite(folder: Path) -> None:
    from robustbench_ft import custom

    suite = custom.read(folder, False)
    for name in suite.splits:
        suite.split(name).labels.sum()


def read_plan(path: Path) -> None:
    from robustbench_ft import plan

    plan.make(plan.Request(**plan.read_toml(path)))


def read_setting(path: Path) -> None:
    from robustbench_ft import plan

    key, _, value = path.read_bytes().decode("utf-8", "replace").partition("=")
    plan.make(plan.Request(method=("ft", "lipsum"), suite=("shapes",), set=((key.strip(), value.strip()),)))


def read_model(folder: Path) -> None:
    from robustbench_ft import clip as clips
    from robustbench_ft import model_ref
    from robustbench_ft.prompts import Task

    clip = clips.load(model_ref.resolve(f"local-dir:{folder}", None))
    clip.preprocess()
    clip.start_from_zero_shot(Task(("red page", "blue page"), ("a photo of a {}",)))


def read_checkpoint(path: Path) -> None:
    import torch

    from robustbench_ft.train import checkpoint

    checkpoint.load(path, torch.device("cpu"), {"step", "weights"}, lambda said: None)


def write_suite(folder: Path) -> Path:
    """A suite of three classes in a manifest, with a shift in folders."""
    rows = ["path,label,camera"]
    for k in range(18):
        name = f"all/{k}.png"
        (folder / "all").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (k, 5, 9)).save(folder / name)
        rows.append(f"{name},{('red', 'green', 'blue')[k % 3]},{k % 2}")
    for k, label in enumerate(("red", "green", "blue")):
        (folder / "night" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), (k, 50, 99)).save(folder / "night" / label / "0.png")
    (folder / "all.csv").write_text("\n".join(rows) + "\n")
    (folder / "suite.toml").write_text(SUITE)
    return folder


def targets(folder: Path) -> dict[str, Target]:
    """Every kind of input, with what reads it; written below `folder`."""
    import fuzz_data
    import torch

    from robustbench_ft.claims import claim_store
    from robustbench_ft.claims.schema import Trust
    from robustbench_ft.train import checkpoint

    runs = made.write(folder / "runs", made.World(skills={"ft": (1.0, 0.1), "wise-ft": (1.0, 0.1)}, n=12, seeds=(0, 1)))
    claim_store.add([runs], folder / "boards", Trust("rerun"))
    record = next(runs.rglob("wise-ft*/seed-0"))
    claims = claim_store.find(folder / "boards")
    stored = folder / "boards" / claims[0].place.run(0)
    suite, model = write_suite(folder / "suite"), tiny.write_model(folder / "model")
    (folder / "plan.toml").write_text(PLAN)
    (folder / "set").write_text("lr=3e-4")
    checkpoint.save({"step": 1, "weights": {"w": torch.zeros(50)}}, folder / "resume-fit.pt")
    runs_read, boards = partial(read_runs, runs), partial(read_boards, folder / "boards")
    return {
        **{name: Target(record / name, runs_read, json=True) for name in ("cell.json", "env.json", "metrics.json")},
        "predictions": Target(record / "predictions" / "alpha-0.5" / "sketch.parquet", runs_read),
        "claim": Target(claims[0].path, boards, json=True),
        "record.json of a claim": Target(stored / "record.json", boards, json=True),
        "predictions of a claim": Target(stored / "predictions.parquet", boards),
        "suite.toml": Target(suite / "suite.toml", partial(read_suite, suite)),
        "manifest": Target(suite / "all.csv", partial(read_suite, suite)),
        "plan": Target(folder / "plan.toml", partial(read_plan, folder / "plan.toml")),
        "--set": Target(folder / "set", partial(read_setting, folder / "set")),
        "model configuration": Target(model / "open_clip_config.json", partial(read_model, model), json=True),
        "vocabulary": Target(model / "vocab.txt", partial(read_model, model)),
        "checkpoint": Target(folder / "resume-fit.pt", partial(read_checkpoint, folder / "resume-fit.pt")),
        **fuzz_data.targets(folder / "data"),
    }


def finding(target: Target, content: bytes) -> str:
    """What is wrong with how `content` is met; '' when nothing is."""
    from robustbench_ft.errors import PlanError, RbftError

    whole, began = target.whole, time.monotonic()
    others = set(target.path.parent.rglob(".*"))
    target.path.write_bytes(content)
    try:
        target.read()
        told = ""
    except PlanError as error:
        told = next((line for line in error.problems if chr(10) in line), "")
    except RbftError as error:
        told = str(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return traceback.format_exc()
    finally:
        target.path.write_bytes(whole)
    if time.monotonic() - began > SLOW:
        return f"it took {time.monotonic() - began:.0f} s"
    if "\n" in told:
        return f"an error of {told.count(chr(10)) + 1} lines: {told[:300]}"
    left = set(target.path.parent.rglob(".*")) - others
    return f"it left {left}" if left else ""


def fuzz(target: Target, examples: int, seed: int, found: Callable[[bytes, str], object]) -> int:
    """Try so many inputs; each finding is told. Returns how many were tried."""
    strategy = damaged_json(target.whole) if target.json else damaged_bytes(target.whole)
    tried = 0

    @hypothesis.seed(seed)  # else each run of a test would try others
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(strategy)
    def attempt(content: bytes) -> None:
        nonlocal tried
        tried += 1
        if told := finding(target, content):
            found(content, told)

    attempt()
    return tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kind", action="append", help="only inputs of these kinds")
    parser.add_argument("--inputs", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0, help="other inputs")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    faulthandler.enable()  # a reader that crashes leaves the damaged file where it is
    folder = Path(tempfile.mkdtemp())
    print(folder, flush=True)
    os.environ["RBFT_CACHE"] = str(folder / "cache")
    counts, lost, ends = Counter[str](), Counter[str](), time.monotonic() + asked.seconds
    seen: set[tuple[str, str]] = set()
    kinds = {name: one for name, one in targets(folder).items() if not asked.kind or name in asked.kind}

    def tell(name: str, content: bytes, told: str) -> None:
        lost[name] += 1
        key = name, "\n".join(line for line in told.splitlines()[-6:] if line.startswith(("  File", "it", "an error")))
        if key not in seen:
            seen.add(key)
            print(f"--- {name}: {told[-1200:]}\n{content[-200:]!r}", flush=True)

    turn = asked.seed
    while time.monotonic() < ends and sum(counts.values()) < asked.inputs:
        for name, one in kinds.items():
            if time.monotonic() < ends and sum(counts.values()) < asked.inputs:
                counts[name] += fuzz(one, 10, turn, partial(tell, name))
        turn += 1
    shutil.rmtree(folder)
    print("\n".join(f"{counts[name]:6} {name}: {lost[name]} findings" for name in kinds))
    print(f"{sum(counts.values())} inputs, {sum(lost.values())} findings, {len(seen)} distinct")
    sys.exit(bool(seen))


if __name__ == "__main__":
    main()
