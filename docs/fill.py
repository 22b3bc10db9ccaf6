"""Put tables of docs/results into README.md, between the markers that name them: `python docs/fill.py [--check]`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- table: (?P<path>\S+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """`text` with every marked block replaced by the first table of the file that its marker names."""

    def block(match: re.Match[str]) -> str:
        table = (ROOT / match["path"]).read_text(encoding="utf-8").partition("\n**")[0].strip()
        return f"<!-- table: {match['path']} -->\n{table}\n<!-- end -->"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = filled(before)
    if "--check" in sys.argv:
        sys.exit(before != after)
    readme.write_text(after, encoding="utf-8")
