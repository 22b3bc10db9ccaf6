"""`rbft data`: tables, exit codes, files and JSON; what a user gets wrong; what a run's record says afterwards."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from clinic import CLASSES, FAULTS
from installed import registered

from robustbench_ft import cache, registry
from robustbench_ft.cli.main import main
from robustbench_ft.doctor import scan
from robustbench_ft.record import store

CHECK = "data check clinic --root TMP/data"


@pytest.fixture(scope="module", autouse=True)
def shelf(clinic_shelf: Path) -> Iterator[None]:
    with registered(clinic_shelf):
        yield


def invoke(words: str, tmp_path: Path, code: int) -> Result:
    done = CliRunner().invoke(main, [word.replace("TMP", str(tmp_path)) for word in words.split()])
    assert done.exit_code == code, (done.output, done.exception)
    assert "Traceback" not in done.output
    return done


def ill(tree: Path, n: int = 5) -> list[Path]:
    """Greyscale images in the test split, which is a note, and one that is cut off, which is not."""
    paths = [tree / "clinic" / "test" / CLASSES[k % 4] / f"test-{k // 4:02d}.jpg" for k in range(n)]
    for path in paths[:-1]:
        path.write_bytes(FAULTS["greyscale"]())
    paths[-1].write_bytes(FAULTS["truncated"]())
    return paths


def test_a_healthy_tree_gets_a_line_per_split_and_the_command_to_run(tree: Path, tmp_path: Path) -> None:
    lines = invoke(CHECK, tmp_path, 0).stdout.splitlines()
    assert lines[0] == "clinic: Clinic"
    assert lines[2].split() == ["split", "place", "layout", "images", "classes", "looked", "at", "verdict"]
    assert lines[3].split() == ["train", f"{tree}/clinic/train", "class", "folders", "40", "4", "all", "ok"]
    assert [line.split()[0] for line in lines[3:8]] == ["train", "val", "test", "cartoon", "train-all"]
    assert lines[-1] == f"ready: rbft run --method lipsum --suite clinic --root {tree}"
    assert all(line == line.rstrip() for line in lines)


def test_notes_do_not_stop_and_errors_do(tree: Path, tmp_path: Path) -> None:
    paths = ill(tree)
    done = invoke(CHECK, tmp_path, 1)
    assert "1 truncated: cut off, a run would stop; get the file again" in done.stdout
    assert f"{paths[-1]} (" in done.stdout
    assert "replace 1 file" in done.stdout
    assert "4 greyscale: one channel, converted to RGB as open_clip does" in done.stdout
    assert "and 1 more (--list FILE has all)" in done.stdout
    assert done.stdout.splitlines()[-1] == "not ready: mend test (above), then check again"
    paths[-1].write_bytes(FAULTS["CMYK"]())
    done = invoke(CHECK, tmp_path, 0)
    assert done.stdout.splitlines()[-1].startswith("ready, with notes: rbft run --method lipsum --suite clinic")


def test_what_is_missing_is_a_line_with_what_was_looked_for(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "clinic" / "cartoon")
    lines = invoke(CHECK, tmp_path, 1).stdout.splitlines()
    assert ["cartoon", "none", "of", "16", "missing", "get", "it"] in [line.split() for line in lines]
    assert any("has no clinic/cartoon or cartoon-of-clinic" in line for line in lines)
    assert lines[-1] == "not ready: get cartoon (rbft data where clinic), then check again"


def test_a_sample_says_so_and_faults_are_counted_among_it(tree: Path, tmp_path: Path) -> None:
    for path in (tree / "clinic" / "test").glob("*/*"):
        path.write_bytes(FAULTS["greyscale"]())
    done = invoke(f"{CHECK} --sample 8", tmp_path, 0)
    assert "8 greyscale among 8 looked at" in done.stdout
    assert "looked at 32 of 88 images, spread over the classes; --all looks at every one" in done.stdout


def test_json_and_list_hold_everything_uncut(tree: Path, tmp_path: Path) -> None:
    paths = ill(tree)
    shutil.copy(tree / "clinic" / "test" / "kite" / "test-05.jpg", tree / "clinic" / "cartoon" / "kite" / "a.jpg")
    done = invoke(f"{CHECK} --all --format json --list TMP/list.tsv", tmp_path, 1)
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["suite"], told["version"], told["ready"], told["roots"]) == ("clinic", 1, False, [str(tree)])
    test = next(split for split in told["splits"] if split["split"] == "test")
    assert (test["images"], test["expected"], test["looked"], test["verdict"]) == (24, 24, 24, "WRONG")
    by_kind = {finding["kind"]: finding for finding in test["findings"]}
    assert {image["path"] for image in by_kind["greyscale"]["images"]} == set(map(str, paths[:-1]))
    assert by_kind["truncated"]["stops"]
    copies = [sorted(image["id"] for image in group["images"]) for group in told["copies"]]
    assert ["cartoon/kite/a", "test/kite/test-05"] in copies
    rows = [line.split("\t") for line in (tmp_path / "list.tsv").read_text().splitlines()]
    assert rows[0] == ["split", "verdict", "kind", "id", "path", "words"]
    assert {len(row) for row in rows} == {6}
    assert {row[4] for row in rows if row[2] == "greyscale"} == set(map(str, paths[:-1]))
    assert [row[3] for row in rows if row[2] == "truncated"] == ["test/cup/test-01"]
    assert ["cartoon", "WRONG", "counts"] in [row[:3] for row in rows]


def test_two_trees_are_compared_through_a_manifest(tree: Path, tmp_path: Path) -> None:
    invoke(f"{CHECK} --all --manifest TMP/theirs.parquet", tmp_path, 0)
    done = invoke(f"{CHECK} --all --against TMP/theirs.parquet", tmp_path, 0)
    assert "compared 136 images by id, label and size, 136 of them by content as well" in done.stdout
    ill(tree, 6)
    (tree / "clinic" / "test" / "dog" / "test-01.jpg").write_bytes(FAULTS["CMYK"]())
    done = invoke(f"{CHECK} --all --against TMP/theirs.parquet --list TMP/list.tsv", tmp_path, 1)
    assert "6 other bytes" in done.stdout
    assert "numbers on the two are not comparable" in done.stdout.splitlines()[-1]
    told = [line for line in (tmp_path / "list.tsv").read_text().splitlines() if "\tDIFFERS\tother bytes\t" in line]
    assert len(told) == 6


WRONG = {
    "no root": ("data check clinic", "suite 'clinic' needs data from the test that writes it: pass --root DIR"),
    "nothing there": ("data check clinic --root TMP", "TMP has no clinic/train or train-of-clinic; it lies under"),
    "no suite": ("data check clinik --root TMP", "unknown suite 'clinik': did you mean clinic"),
    "no folder": ("data check clinic --root TMP/no", "no such data folder: TMP/no; correct --root or RBFT_DATA"),
    "both": (f"{CHECK} --all --sample 3", "--all opens every image and --sample a number of them; give one"),
    "no parent": (f"{CHECK} --list TMP/no/list.tsv", "--list TMP/no/list.tsv: there is no folder TMP/no; make it"),
    "a folder": (f"{CHECK} --manifest TMP", "--manifest TMP: that is a folder; name a file"),
    "no manifest": (f"{CHECK} --against TMP/no", "cannot read the manifest TMP/no: "),
    "other file": (f"{CHECK} --against TMP/data/clinic/test/cup/test-00.jpg", "test-00.jpg: "),
    "where": ("data where clinik", "unknown suite 'clinik': did you mean clinic"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_a_user_gets_wrong_is_one_line_and_exit_code_2(name: str, tree: Path, tmp_path: Path) -> None:
    words, text = WRONG[name]
    lines = invoke(words, tmp_path, 2).stderr.splitlines()
    assert lines[-1].startswith("rbft: ")
    assert text.replace("TMP", str(tmp_path)) in lines[-1]
    assert not any(line.startswith("rbft: ") for line in lines[:-1])


def test_an_interrupted_check_keeps_and_writes_nothing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> set[Path]:
        return set((cache.root() / "manifest").glob("*"))

    before = kept()

    def interrupt(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scan, "look_at", interrupt)
    done = invoke(f"{CHECK} --list TMP/list.tsv --manifest TMP/m.parquet", tmp_path, 130)
    assert "rbft: interrupted; nothing was kept or written, run the same command again" in done.stderr
    assert kept() == before
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_where_names_origin_terms_and_what_is_there(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "clinic" / "cartoon")
    text = invoke("data where clinic --root TMP/data", tmp_path, 0).stdout
    assert "rbft downloads nothing" in text
    facts = {
        "origin": "clinic.example (photos.zip)", "size": "1 MB", "licence": "MIT", "terms": "a form to sign",
        "mirrors": "Mirror: clinic/photos", "unpack": "clinic/<split>/<class>/*",
        "test at": "clinic/test or test-of-clinic",
    }  # fmt: skip
    for word, told in facts.items():
        assert any(line.split() == [*word.split(), *told.split()] for line in text.splitlines()), word
    assert f"found: {tree}/clinic/test" in text
    assert f"not found ({tree})" in text
    assert "not found (no root was given)" in invoke("data where clinic", tmp_path, 0).stdout


def test_where_of_embedded_suites_fetches_nothing(tmp_path: Path) -> None:
    assert "This suite is embedded: nothing is to be fetched" in invoke("data where shapes", tmp_path, 0).stdout


@pytest.mark.parametrize(
    "name", [name for name, entry in registry.entries("suite").items() if entry.shelf == "builtin"]
)
def test_where_answers_for_every_suite(name: str, tmp_path: Path) -> None:
    text = invoke(f"data where {name}", tmp_path, 0).stdout
    assert text.startswith(f"{name}: ")
    assert ("rbft downloads nothing" in text) != ("embedded" in text)


def test_a_run_records_what_the_last_check_found(tree: Path, tmp_path: Path, tiny_model: str) -> None:
    """And its predictions are the same, checked or not."""
    words = f"run --method zero-shot --suite clinic --root TMP/data --model {tiny_model} --precision fp32 --out TMP/"
    invoke(f"{words}before", tmp_path, 0)
    invoke(f"{CHECK} --all --format json", tmp_path, 0)
    invoke(f"{words}after", tmp_path, 0)
    invoke(f"{words}published --protocol as-published", tmp_path, 0)
    found = {name: store.find_records([tmp_path / name])[0] for name in ("before", "after", "published")}
    told = {name: record.env["manifest"] for name, record in found.items()}
    assert (told["before"]["checked"], told["before"]["verdict"]) == (None, None)
    assert (told["after"]["checked"], told["after"]["verdict"]) == ("all", "ok")
    assert (told["published"]["checked"], told["published"]["verdict"]) == ("all", "ok")
    assert told["before"]["digest"] == told["after"]["digest"] != told["published"]["digest"]
    pairs = [found[name].folder / "predictions" / "final" / "test.parquet" for name in ("before", "after")]
    assert pairs[0].read_bytes() == pairs[1].read_bytes()
    os.utime(tree / "clinic" / "test" / "cup" / "test-00.jpg", (0, 0))
    invoke(f"{words}touched", tmp_path, 0)
    assert store.find_records([tmp_path / "touched"])[0].env["manifest"]["checked"] is None


def test_the_digest_of_a_check_is_the_one_in_records(tree: Path, tmp_path: Path, tiny_model: str) -> None:
    done = invoke(f"{CHECK} --sample 0 --format json", tmp_path, 0)
    invoke(f"run --method zero-shot --suite clinic --root TMP/data --model {tiny_model} --out TMP/runs", tmp_path, 0)
    env = store.find_records([tmp_path / "runs"])[0].env
    assert env["manifest"]["digest"] == json.loads(done.stdout)["digest"]
    assert env["manifest"]["checked"] == "sample of 0"
