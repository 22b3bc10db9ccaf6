"""What can be wrong with DomainNet's folders and split files, and what the one line that answers must contain."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import forest
from imagenet_cases import again, into, put

TEST = "real_test.txt"
FIRST = "real/aircraft_carrier/real_001_000005.jpg"


@dataclass(frozen=True)
class Case:
    """`damage` is given TMP/domainnet: the domains' folders as links, and copies of the lists of `tree`."""

    split: str
    damage: Callable[[Path], object]
    text: str
    tree: Callable[[Path], Path] = forest.domainnet
    root: str = "TMP"

    def prepare(self, base: Path, tmp: Path) -> str:
        """The broken data, and the value of --root."""
        tree = self.tree(base)
        forest.copy_domains(forest.domainnet(base), tmp)
        for path in (tree / "domainnet").rglob("*.txt"):
            shutil.copy(path, tmp / "domainnet" / path.relative_to(tree / "domainnet"))
        self.damage(tmp / "domainnet")
        return self.root.replace("TMP", str(tmp))


def own(place: Path, domain: str) -> Path:
    """A copy of a domain's folder instead of the link to it."""
    source = (place / domain).resolve()
    (place / domain).unlink()
    return forest.copy(source, place / domain)


def listed(old: str, new: str, name: str = TEST) -> Callable[[Path], object]:
    return lambda place: again(place / name, old, new)


def add(line: str, name: str = TEST) -> Callable[[Path], object]:
    return lambda place: put(place / name, (place / name).read_text() + line + "\n")


def without_lists(place: Path) -> None:
    for path in place.rglob("*.txt"):
        path.unlink()


def sorted_labels(place: Path) -> None:
    """As ImageFolder sorts: capitals first."""
    lines = [line.rsplit(" ", 1)[0] for line in (place / TEST).read_text().splitlines()]
    rank = {name: k for k, name in enumerate(sorted({line.split("/")[1] for line in lines}))}
    put(place / TEST, "".join(f"{line} {rank[line.split('/')[1]]}\n" for line in lines))


def mixed(place: Path) -> None:
    """The sketch list of the other generation."""
    leaves = forest.domain_leaves("sketch")
    forest.write_list(place / "sketch_test.txt", [*leaves["test"], *leaves["more"]])


def mini(place: Path) -> None:
    """126 classes with labels of their own, as in the subset that domain adaptation uses."""
    lines = [line.rsplit(" ", 1)[0] for line in (place / TEST).read_text().splitlines()][100:226]
    put(place / TEST, "".join(f"{line} {k}\n" for k, line in enumerate(lines)))


def lost(place: Path) -> None:
    (own(place, "painting") / "cello/painting_067_000005.jpg").unlink()


CASES = {
    "root too high": Case("test", lambda p: (p.parents[1] / "up").mkdir(), "has no domainnet/real or", root="TMP/.."),
    "root too low": Case("test", lambda p: None, "it lies under TMP: pass --root TMP", root="TMP/domainnet/real"),
    "no lists": Case("train", without_lists, "TMP/domainnet has no real_train.txt, nor have its splits, txt, split_fi"),
    "no list of a domain": Case("clipart", lambda p: (p / "clipart_test.txt").unlink(), "has no clipart_test.txt, nor"),
    "half a list": Case("train", lambda p: (p / "splits/real_val_split.txt").unlink(), "has no real_train.txt, nor",
                        forest.domainnet_before),
    "no such image": Case("painting", lost, "painting_test.txt names 1 image (cello/painting_067_000005.jpg) that is "),
    "no such class": Case("painting", lambda p: shutil.rmtree(own(p, "painting") / "cello"), "names 1 image (cello/pa"),
    "label too large": Case("test", listed(f"{FIRST} 0", f"{FIRST} 345"), f"{TEST}, line 1: label 345 is outside 0..3"),
    "label negative": Case("test", listed(f"{FIRST} 0", f"{FIRST} -1"), f"line 1: '{FIRST} -1' is not 'path label'"),
    "no label": Case("test", listed(f"{FIRST} 0", FIRST), f"{TEST}, line 1: '{FIRST}' is not 'path label'; get the of"),
    "label of another class": Case("test", listed(f"{FIRST} 0", f"{FIRST} 7"), "label 7, which is 'anvil' in the offi"),
    "labels sorted": Case("test", sorted_labels, "label 3, which is 'ambulance' in the official order; get the offici"),
    "mini": Case("test", mini, "in the official order; get the official split files, whose order no sorting gives"),
    "line twice": Case("test", add(f"{FIRST} 0"), f"TMP/domainnet/{TEST} names '{FIRST}' twice; get the official file"),
    "another domain": Case("clipart", lambda p: shutil.copy(p / "sketch_test.txt", p / "clipart_test.txt"),
                           "clipart_test.txt names 'sketch/aircraft_carrier/sketch_001_000005.jpg', which is not unde"),
    "train for test": Case("test", lambda p: shutil.copy(p / "real_train.txt", p / TEST), "names 690 images that TMP/"),
    "empty list": Case("test", lambda p: put(p / TEST, "\n"), f"TMP/domainnet/{TEST} names no image; get the official"),
    "not text": Case("test", lambda p: put(p / TEST, b"PK\x03\x04\xff\xfe"), f"TMP/domainnet/{TEST} is not UTF-8 text"),
    "comma for a space": Case("test", lambda p: put(p / TEST, (p / TEST).read_text().replace(" ", ",")), "is not 'pat"),
    "two lists": Case("test", lambda p: put(p / "splits" / TEST, f"{FIRST} 0\n"), f"TMP/domainnet/{TEST} and TMP/doma"),
    "two generations": Case("sketch", mixed, "generations: TMP/domainnet/real_test.txt is cleaned, "),
    "a line too few": Case("test", listed(f"{FIRST} 0\n", ""), "split 'test' has 344 images, the cleaned lists have 3"),
    "domain one level lower": Case("clipart", lambda p: (own(p, "clipart"), into("clipart")(p / "clipart")),
                                   "TMP/domainnet/clipart is one level too high: its folder 'clipart' holds"),
    "a file for a folder": Case("clipart", lambda p: ((p / "clipart").unlink(), (p / "clipart").touch()), "that are n"),
    "path leads out": Case("test", listed(f"{FIRST} 0", "../real/x.jpg 0"), "names '../real/x.jpg', which is not unde"),
}  # fmt: skip
SPOKEN = ("no lists", "no such image", "labels sorted", "two generations", "a line too few")  # through the command line
