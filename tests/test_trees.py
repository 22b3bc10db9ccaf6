"""Folders and tables: labels come from names and tables, and what is odd is named."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from robustbench_ft.errors import MissingDataError, RbftError
from robustbench_ft.images import folders


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_folders_give_labels_by_name_and_order_by_label(tmp_path: Path) -> None:
    tree(tmp_path, "10/b.jpg", "10/a.JPEG", "2/c.png", "1/d.webp", "1/.hidden.txt", "1/Thumbs.db", ".git/x", "note.txt")
    found = folders.class_folders(tmp_path, {"2": 0, "10": 1, "1": 2})
    assert found.paths == ("2/c.png", "10/a.JPEG", "10/b.jpg", "1/d.webp")
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert found.root == tmp_path


def test_other_folders_are_left_out_only_where_a_set_has_them(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.jpg", "dog/a.jpg", "zipper/a.jpg")
    with pytest.raises(MissingDataError, match=r"1 folder \(zipper\) that name no class of this set; move them away"):
        folders.class_folders(tmp_path, {"cat": 0, "dog": 1})
    assert len(folders.class_folders(tmp_path, {"cat": 0, "dog": 1}, others=True).paths) == 2
    assert len(folders.class_folders(tmp_path, {"cat": 0, "dog": 1}, ignore=("zipper",)).paths) == 2


def test_a_part_of_the_classes_is_read_only_when_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.jpg")
    classes = {name: k for k, name in enumerate(("cat", "dog", "emu", "fox", "gnu"))}
    with pytest.raises(MissingDataError, match=r"lacks 4 class folders \(dog, emu, fox, \.\.\.\) of 5; .*partial"):
        folders.class_folders(tmp_path, classes)
    assert folders.class_folders(tmp_path, classes, partial=True).labels.tolist() == [0]
    tree(tmp_path, "fox/a.jpg")
    assert folders.class_folders(tmp_path, classes, partial=True).labels.tolist() == [
        0,
        3,
    ]  # no rank
    (tmp_path / "fox/a.jpg").unlink()
    (tmp_path / "cat/a.jpg").unlink()
    with pytest.raises(MissingDataError, match="holds no image of any class; unpack the archive into it"):
        folders.class_folders(tmp_path, classes, partial=True)


@pytest.mark.parametrize(
    ("name", "is_image", "stem"),
    [
        ("a.jpg", True, "a"), ("n01440764_10026.JPEG", True, "n01440764_10026"), ("a.b.c.PnG", True, "a.b.c"),
        ("0.000116_digital clock _ x_0.86.jpg", True, "0.000116_digital clock _ x_0.86"), ("jpg", False, "jp"),
        ("a.txt", False, "a"), ("a.jpg.part", False, "a.jpg"), ("a.npy", False, "a"),
    ],
)  # fmt: skip
def test_images_are_known_by_their_suffix(name: str, is_image: bool, stem: str) -> None:
    assert folders.is_image(name) is is_image
    if is_image:
        assert folders.stems([f"x.y/{name}"]) == [f"x.y/{stem}"]


def test_a_split_file_may_hold_spaces_and_any_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffreal/a b/c 1.jpg 3\r\nreal/d.jpg 0\r\n\r\n".encode())
    paths, labels = folders.split_file(path, 4)
    assert paths == ("real/a b/c 1.jpg", "real/d.jpg")
    assert labels.tolist() == [3, 0]


def test_files_of_a_table_are_looked_up_folder_by_folder(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    source = tmp_path / "list.txt"
    folders.check_files(tmp_path, ["a/1.jpg", "b/3.jpg"], source)
    with pytest.raises(MissingDataError, match=r"list\.txt names 2 images \(a/3\.jpg, c/1\.jpg\) that are not under"):
        folders.check_files(tmp_path, ["a/1.jpg", "a/3.jpg", "c/1.jpg"], source)


def test_tables_are_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('\ufeffid,when,more\n007,2011-01-01 00:00:00,"a,\nb"\n010,,x\n', encoding="utf-8")
    found = folders.read_table(path, ("id", "more"), ("when", "where"))
    assert list(found) == ["id", "more", "when"]
    assert found["id"].tolist() == ["007", "010"]
    assert found["more"].tolist() == ["a,\nb", "x"]
    assert found["when"].tolist() == ["2011-01-01 00:00:00", ""]
    with pytest.raises(RbftError, match=r"table\.csv has no column split, x; its columns: id, when, more"):
        folders.read_table(path, ("split", "x"))


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    assert folders.integers(tmp_path, "y", np.array(["1.0", "07", "-3"])).tolist() == [1, 7, -3]
    for text in ("1.5", "nan", "inf", "1e300", "a", ""):
        with pytest.raises(RbftError, match="column y"):
            folders.integers(tmp_path, "y", np.array(["1", text]))


def test_the_held_out_are_those_that_hash_lowest_in_each_class() -> None:
    ids = [f"class-{k % 3}/{k}" for k in range(60)]
    labels = np.arange(60) % 3
    chosen = folders.held_out(ids, labels, 5)
    for label in range(3):
        own = [i for i, k in zip(ids, labels.tolist(), strict=True) if k == label]
        lowest = sorted(own, key=lambda name: hashlib.sha256(name.encode()).digest())[:5]
        assert {i for i, out in zip(ids, chosen.tolist(), strict=True) if out and i in own} == set(lowest)


def test_what_is_held_out_depends_on_nothing_but_the_class() -> None:
    """Neither the order of the listing nor other classes move it, and one image more moves at most one."""
    ids = np.array([f"{k}" for k in range(200)])
    labels = np.arange(200) % 4
    chosen = set(ids[folders.held_out(ids.tolist(), labels, 0.1)])
    assert len(chosen) == 20
    order = np.random.default_rng(0).permutation(200)
    assert set(ids[order][folders.held_out(ids[order].tolist(), labels[order], 0.1)]) == chosen
    first = labels == 0
    assert set(ids[first][folders.held_out(ids[first].tolist(), labels[first], 0.1)]) == chosen & set(ids[first])
    more = folders.held_out([*ids.tolist(), "200"], np.append(labels, 0), 0.1)
    assert len(chosen - set(np.append(ids, "200")[more])) <= 1


@pytest.mark.parametrize(("size", "per_class", "n"), [(2, 26, 1), (1, 26, 0), (30, 26, 26), (26, 26, 25), (4, 0.1, 1),
                                                      (15, 0.1, 2), (1, 0.5, 0)])  # fmt: skip
def test_no_class_is_emptied(size: int, per_class: float, n: int) -> None:
    assert folders.held_out([f"{k}" for k in range(size)], np.zeros(size, np.int64), per_class).sum() == n
