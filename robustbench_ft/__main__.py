"""`python -m robustbench_ft`: the command `rbft`."""

from .cli import main

main(prog_name="rbft")
