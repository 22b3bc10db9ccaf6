"""Names that become paths: in one place, and none of them leads out of its folder."""

import json
import re
from pathlib import Path

import made
import pytest
from click.testing import CliRunner

from robustbench_ft import file_names
from robustbench_ft.cli.main import main
from robustbench_ft.errors import RbftError
from robustbench_ft.record import store

BAD = {
    "..": "no name", ".": "no name", "": "no name", "../x": "holds '/'", "/etc": "holds '/'", "a\\b": "holds '\\\\'",
    "a\0b": "holds '\\x00'", "C:x": "holds ':'", "a\nb": "holds '\\n'", "con": "device", "NUL.txt": "device",
    "com1": "device", ".hidden": "begins with '.'", "-rf": "begins with '-'", "end.": "ends with '.'",
    "x" * 300: "longer than 200", "\ud800": "no text", 'say "x"': "holds '\"'",
}  # fmt: skip
GOOD = ["ft", "alpha-0.5", "wise-ft+ema", "imagenet+objectnet", "r", "v2-matched.freq", "console", "été", "a b"]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    assert BAD[name] in file_names.problem(name)
    with pytest.raises(RbftError, match=r"^the split .* cannot name a file: it .*; use letters"):
        file_names.checked(name, "the split")


@pytest.mark.parametrize("name", GOOD)
def test_other_names_are_taken(name: str) -> None:
    assert file_names.checked(name, "the split") == name


@pytest.mark.parametrize("key", ["suite", "method", "model", "digest"])
@pytest.mark.parametrize("name", ["..", "../../outside", "/tmp/outside", "a\\..\\b", "nul", "x\0"])
def test_a_crafted_record_writes_nothing_outside_of_the_boards(key: str, name: str, tmp_path: Path) -> None:
    made.write(tmp_path / "runs", made.World(skills={"ft": (1.0, 0.1)}, n=20, seeds=(0,)))
    [path] = (tmp_path / "runs").rglob("cell.json")
    cell = json.loads(path.read_text())
    cell[key] = {**cell["model"], "name": name} if key == "model" else f"{name}{'x' * (key == 'digest') * 8}"
    path.write_text(json.dumps(cell))
    before = {file for file in tmp_path.rglob("*") if "boards" not in file.parts}
    root = tmp_path / "deep" / "boards"
    done = CliRunner().invoke(main, ["leaderboard", "add", str(tmp_path / "runs"), "--root", str(root)])
    written = set(tmp_path.rglob("*")) - before
    assert all(file == tmp_path / "deep" or root in (file, *file.parents) for file in written)
    if done.exit_code:
        assert isinstance(done.exception, SystemExit)
        assert len(re.findall("^rbft: ", done.output, re.MULTILINE)) == 1
    assert not Path("/tmp/outside").exists()
    if key in ("suite", "method"):
        assert done.exit_code == 2
        assert "cannot name a file" in done.output


@pytest.mark.parametrize("where", ["candidate", "split"])
def test_a_crafted_summary_reads_nothing_elsewhere(where: str, tmp_path: Path) -> None:
    parts = {"candidate": "final", "split": "test", where: "../../../x"}
    with pytest.raises(RbftError, match=rf"the {where} '\.\./\.\./\.\./x' cannot name a file"):
        store.predictions_path(tmp_path, **parts)


@pytest.mark.parametrize("name", ["ID", "ID val", "mean OOD", "mean weather"])
def test_a_shift_is_not_called_like_a_column(name: str, tmp_path: Path) -> None:
    world = made.World(skills={"ft": (1.0, 0.1)}, n=20, seeds=(0,), shifts=("fog", name), groups={"weather": ("fog",)})
    made.write(tmp_path, world)
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert done.exit_code == 2
    assert f"'{name}' is a column of every table" in done.output
