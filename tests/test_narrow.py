"""Tables on a terminal of 80 columns: no number is cut, and every piece names its rows."""

import pytest
from click.testing import CliRunner

from robustbench_ft.cli.main import main
from robustbench_ft.cli.show import pieces
from robustbench_ft.tabular import Text

HEAD = ("method", "seeds", "ID", "mean OOD", "letters", "rank", "P(best)", "difference to ft", "p", "p Holm", "reading")
ROW = (
    "wise-ft (alpha by ID val)", "3", "87.5 ± 10.7", "92.5 ± 4.1", "a", "1-3", "0.25", "+11.2 ± 12.8", ".070", ".279",
    "not resolved: these runs can detect 26 or more",
)  # fmt: skip


def widths(text: Text, columns: list[int]) -> int:
    """Signs that a drawn table takes at least, where words of headings and of the last column may be wrapped."""
    last = len(text.header) - 1
    cells = {k: [row[k].split()[0] if k == last else row[k] for row in text.body] for k in columns}
    return 1 + sum(3 + max(map(len, (*text.header[k].split(), *cells[k]))) for k in columns)


@pytest.mark.parametrize("width", [60, 80, 100, 140, 300])
def test_pieces_fit_and_hold_every_column_once(width: int) -> None:
    text = Text("t", HEAD, (ROW,))
    found = pieces(text, width)
    assert all(columns[0] == 0 and len(columns) > 1 for columns in found)
    assert [k for columns in found for k in columns[1:]] == list(range(1, len(HEAD)))
    assert all(widths(text, columns) <= width for columns in found)
    assert (len(found) == 1) == (width > 140)


def test_two_columns_are_never_cut_apart() -> None:
    assert pieces(Text("t", ("a", "b"), (("x" * 90, "y" * 90),)), 80) == [[0, 1]]
    assert pieces(Text("t", ("a",), ()), 80) == [[0]]


def test_groups_say_in_whole_lines_what_their_commands_do() -> None:
    for group in ("leaderboard", "new", "data", "cache", "check"):
        listed = CliRunner().invoke(main, [group, "--help"], terminal_width=80).output.partition("Commands:")[2]
        assert listed
        assert "..." not in listed
