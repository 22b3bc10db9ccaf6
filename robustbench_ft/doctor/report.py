"""An examination in words: a line per split, what was found, and what to do next; all of it again as JSON or a list."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from robustbench_ft.tabular import Text, number

from .check import Examination, Finding, Line
from .manifest import Difference

HEADER = ("split", "place", "layout", "images", "classes", "looked at", "verdict", "next step")
RIGHT = ("images", "classes", "looked at")
PLACES = ("place", "layout")  # shown apart where the terminal is narrow
SHOWN = 3
Json = dict[str, Any]


def row(found: Examination, line: Line) -> dict[str, str]:
    """Texts of one line, by column."""
    step = next((finding.step for finding in found.of(line.split) if finding.stops), "")
    texts = dict.fromkeys(HEADER, "") | {"split": line.split, "verdict": line.verdict, "next step": step}
    if line.found is None:
        return texts | {"images": "none" if line.expected is None else f"none of {line.expected:,}"}
    n, present = len(line.found), len(np.unique(line.found.labels))
    return texts | {
        "place": str(line.place) if line.place else "",
        "layout": line.found.layout,
        "images": number(n, text=f"{n:,}" if line.expected in (None, n) else f"{n:,} of {line.expected:,}"),
        "classes": number(
            present, text=f"{present:,}" if present == line.of_classes else f"{present:,} of {line.of_classes:,}"
        ),
        "looked at": number(line.looked, text="all" if line.looked == n else f"{line.looked:,}"),
    }


def table(found: Examination) -> Text:
    """A line for each split."""
    rows = [row(found, line) for line in found.lines]
    words = tuple(k for k, name in enumerate(HEADER) if name not in RIGHT)
    body = tuple(tuple(texts[name] for name in HEADER) for texts in rows)
    return Text(f"{found.suite.name}: splits", HEADER, body, words=words)


def table_of_findings(found: Examination) -> Text:
    """A line for each finding, and for each image that it names as an example."""
    body = tuple((split, word, line.strip()) for split, word, lines in sections(found) for line in lines)
    return Text(f"{found.suite.name}: findings", ("split", "verdict", "what"), body, words=(0, 1, 2))


def sections(found: Examination, shown: int = SHOWN) -> Iterator[tuple[str, str, list[str]]]:
    """(split, 'WRONG', 'missing', 'note' or 'DIFFERS', lines), errors of a split first; long lists are cut."""
    said = set[tuple[str, str]]()
    for line in found.lines:
        for finding in sorted(found.of(line.split), key=lambda finding: not finding.stops):
            word = "missing" if finding.kind == "missing" else "WRONG" if finding.stops else "note"
            splits = line.split
            if not finding.indices and not finding.details:  # said once of all splits that share a table or a folder
                if (word, finding.text) in said:
                    continue
                said.add((word, finding.text))
                splits = _sharing(found, finding.text)
            listed = [_image(found, finding, k) for k in finding.indices[:shown]]
            more = len(finding.details) + len(finding.indices) - shown  # the text itself names a few of the details
            yield splits, word, [finding.text, *_cut(listed, more, shown)]
    for difference in found.differences or ():
        listed = list(difference.ids[:shown])
        what = f"{len(difference.ids):,} {difference.what}" if difference.ids else difference.what
        yield difference.split, "DIFFERS", [what, *_cut(listed, len(difference.ids) - shown, shown)]


def _sharing(found: Examination, text: str) -> str:
    """The splits of which this is said."""
    own = [line.split for line in found.lines if any(finding.text == text for finding in found.of(line.split))]
    return ", ".join(own) if len(own) < len(found.lines) or len(own) == 1 else "all"


def _cut(listed: list[str], more: int, shown: int) -> list[str]:
    return [f"  {text}" for text in listed[:shown]] + (
        [f"  and {more:,} more (--list FILE has all)"] if more > 0 else []
    )


def _image(found: Examination, finding: Finding, index: int) -> str:
    split, words = found.splits[finding.split], _words(found, finding, index)
    name = split.images.name(index) if split.images.array() is None else split.ids[index]
    return name + (f" ({words})" if words else "")


def _words(found: Examination, finding: Finding, index: int) -> str:
    return finding.words.get(index) or found.seen[finding.split].words.get(index, "")


def footer(found: Examination) -> list[str]:
    """Number of images examined, and the digest of the data."""
    lines: list[str] = []
    own = [line for line in found.lines if line.found and line.split in found.once]
    looked, n = sum(line.looked for line in own), sum(len(found.splits[line.split]) for line in own)
    if looked < n:
        lines.append(f"looked at {looked:,} of {n:,} images, spread over the classes; --all looks at every one")
    if found.copies is None:
        lines.append("copies were not looked for (--no-copies)")
    if found.differences is not None:
        contents, both = found.compared
        lines.append(f"compared {both:,} images by id, label and size, {contents:,} of them by content as well")
    if found.digest:
        lines.append(f"data digest {found.digest[:16]} (a run on these data has it in env.json)")
    return lines


def verdict(found: Examination, roots: str) -> str:
    """One sentence: what to do next. `roots` are the --root options as they were given."""
    named = {
        word: ", ".join(line.split for line in found.lines if line.verdict == word) for word in ("missing", "WRONG")
    }
    if any(named.values()):
        get = f"get {named['missing']} (rbft data where {found.suite.base})" if named["missing"] else ""
        mend = f"mend {named['WRONG']} (above)" if named["WRONG"] else ""
        return f"not ready: {' and '.join(filter(None, (get, mend)))}, then check again"
    if found.differences:
        return "not the same data as the manifest's: numbers on the two are not comparable"
    notes = ", with notes" if any(line.verdict == "notes" for line in found.lines) else ""
    return f"ready{notes}: rbft run --method lipsum --suite {found.suite.reference}{roots}"


def as_json(found: Examination) -> Json:
    """Everything, uncut."""
    return {
        "suite": found.suite.name, "version": found.suite.version, "ready": found.ready, "digest": found.digest,
        "roots": [str(folder) for folder in found.suite.roots.folders],
        "splits": [_split(found, line) for line in found.lines],
        "copies": None if found.copies is None else [
            {"sha256": group.sha256, "images": [_member(found, name, k) for name, k in group.members]}
            for group in found.copies
        ],
        "differences": None if found.differences is None else [
            {"split": d.split, "what": d.what, "ids": list(d.ids)} for d in found.differences
        ],
        "compared": {"by_content": found.compared[0], "by_id": found.compared[1]},
    }  # fmt: skip


def _split(found: Examination, line: Line) -> Json:
    own: Json = {
        "split": line.split, "verdict": line.verdict, "expected": line.expected, "looked": line.looked,
        "findings": [
            {"kind": f.kind, "stops": f.stops, "text": f.text, "next": f.step, "details": list(f.details),
             "images": [_member(found, f.split, k, _words(found, f, k)) for k in f.indices]}
            for f in found.of(line.split)
        ],
    }  # fmt: skip
    if line.found is not None:
        present = len(np.unique(line.found.labels))
        own |= {
            "place": str(line.place) if line.place else None, "layout": line.found.layout,
            "images": len(line.found), "classes": present, "of_classes": line.of_classes,
        }  # fmt: skip
    return own


def _member(found: Examination, name: str, index: int, words: str = "") -> Json:
    split = found.splits[name]
    member: Json = {"split": name, "id": split.ids[index], "path": split.images.name(index)}
    return member | ({"words": words} if words else {})


def listing(found: Examination) -> str:
    """Tab-separated: split, verdict, kind, id, path, words; one line for each image of each finding."""
    lines = ["split\tverdict\tkind\tid\tpath\twords"]
    for line in found.lines:
        for finding in found.of(line.split):
            start = f"{line.split}\t{'WRONG' if finding.stops else 'note'}\t{finding.kind}"
            lines += [f"{start}\t\t\t{text}" for text in finding.details]
            for k in finding.indices:
                one = _member(found, finding.split, k, _words(found, finding, k))
                lines.append(f"{start}\t{one['id']}\t{one['path']}\t{one.get('words', '')}")
            if not finding.indices and not finding.details:
                lines.append(f"{start}\t\t\t{finding.text}")
    for difference in found.differences or ():
        lines += _different(difference)
    return "\n".join(lines) + "\n"


def _different(difference: Difference) -> list[str]:
    start = f"{difference.split}\tDIFFERS\t{difference.what}"
    return [f"{start}\t{example}\t\t" for example in difference.ids] or [f"{start}\t\t\t"]
