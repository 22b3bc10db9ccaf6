"""The command line: parsing and printing. Nothing heavy is imported before a command needs it."""

import io
import sys
from pathlib import Path
from typing import Any

import click

from robustbench_ft import __version__
from robustbench_ft.errors import DiedError, FailedError, PlanError, RbftError, StoppedError, shortened

from .authors import check, list_command, show_command
from .bench import bench, bench_loader
from .cache import cache_group as cache
from .canary import canary
from .compare import compare, diff, power
from .data import data
from .diagnose import diagnose
from .export import export_command, push
from .leaderboard import leaderboard
from .new import new
from .predict import predict
from .remove import remove
from .report import report_command
from .reproduce import reproduce
from .run import run
from .status import logs, status
from .submit import submit
from .tune import tune

# What `rbft` alone shows: each command with its line, by what somebody wants to do.
SECTIONS: dict[str, dict[click.Command, str]] = {
    "Run": {
        run: "Fit methods on a suite and evaluate them on its shifts.",
        tune: "Search settings, with as many trials for every method.",
        reproduce: "Run a published row as it was made, beside its number.",
        status: "Where every cell stands: done, running, failed, stale.",
        logs: "What a cell said.",
        remove: "Remove records, failed and unfinished cells.",
    },
    "Read the results": {
        report_command: "Tables and a figure from records.",
        compare: "Methods against a baseline: intervals, tests, ranks.",
        diff: "Two runs, example by example.",
        power: "Which differences these runs could show.",
        diagnose: "What fine-tuning moved: features, energy gap, forgetting.",
        predict: "What the model of a run says of your own images.",
    },
    "Publish": {
        export_command: "A run's model as a folder that plain open_clip loads.",
        push: "The same, to the hub of Hugging Face.",
        leaderboard: "Make claims, verify them, build boards.",
    },
    "Look up": {
        list_command: "All methods and suites.",
        show_command: "One method or suite: equation, settings, sources.",
    },
    "Check this machine": {
        data: "A suite's data: where from, whole, readable.",
        canary: "A zero-shot number against the published one.",
        bench: "A training step of each method beside a bare loop.",
        bench_loader: "Image loading beside torchvision's.",
        cache: "Kept pixels and heads: how much, and away with it.",
    },
    "Write your own": {
        new: "Start a method or a suite.",
        check: "Whether a method or a suite keeps its contract.",
    },
}
WIDEST = max(len(command.name or "") for commands in SECTIONS.values() for command in commands)
EPILOG = """\b
Examples
  rbft run --method lipsum --suite shapes
  rbft run --method ft --method lipsum --suite digits --seeds 0-4
  rbft run --method ft --suite shapes --set lr=1e-4 --set lr=3e-4   (a grid)
  rbft run --method flyp --suite imagenet --devices 4            (four GPUs)
  rbft tune --method ft --method lipsum --suite shapes --trials 16
  rbft compare runs --baseline ft
"""


STOPPED = "interrupted; run the same command again to resume from the last checkpoint"
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class _Cli(click.Group):
    """Turns errors a user can cause into one line (or one line each) and exit code 2, Ctrl-C into 130."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.pop("standalone_mode", True):
            return super().main(*args, **extra, standalone_mode=False)
        for stream in (sys.stdout, sys.stderr):  # a sign that the terminal's encoding lacks is shown as '?'
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            code = super().main(*args, **extra, standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError as error:  # a group alone asks what there is
            click.echo(error.format_message())
            sys.exit(0)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "rbft"
            click.echo(f"rbft: {error.format_message()} (see `{command} --help`)", err=True)
            sys.exit(2)
        except click.Abort:
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section."""
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([((command.name or "").ljust(WIDEST), line) for command, line in commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StoppedError as error:
            _fail(ctx, error, (str(error),), INTERRUPTED)
        except FailedError as error:
            if ctx.params.get("traceback"):
                click.echo("".join(map(_error_log, error.failed)), err=True, nl=False)
            _fail(ctx, None, error.problems, 1)
        except DiedError as error:
            _fail(ctx, error, (str(error),), 1)
        except PlanError as error:
            _fail(ctx, error, error.problems)
        except RbftError as error:
            _fail(ctx, error, (str(error),))
        except OSError as error:  # the system refuses a path that was named, e.g. one that is too long
            if error.filename is None:
                raise
            line = f"cannot use {error.filename!s}: {error.strerror}; name another path, or correct its permissions"
            _fail(ctx, error, (line,))
        except KeyboardInterrupt:
            _fail(ctx, None, (STOPPED,), INTERRUPTED)
        except RuntimeError as error:
            if not isinstance(error.__cause__, KeyboardInterrupt):  # Python < 3.12 wraps one inside a class statement
                raise
            _fail(ctx, None, (STOPPED,), INTERRUPTED)


def _fail(ctx: click.Context, error: Exception | None, lines: tuple[str, ...], code: int = 2) -> None:
    if ctx.params.get("traceback") and error is not None:
        raise error
    for line in lines:
        click.echo(f"rbft: {shortened(line)}", err=True)
    sys.exit(code)


def _error_log(folder: Path) -> str:
    """The traceback of a failed cell; '' where none could be written."""
    from robustbench_ft.sweep import failure

    path = folder / failure.ERROR
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


@click.group(
    cls=_Cli, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="rbft")
@click.option("--traceback", is_flag=True, help="Show where an error came from.")
def main(traceback: bool) -> None:
    """Robust fine-tuning of CLIP: run methods over shift suites, compare them honestly."""


leaderboard.add_command(submit)
for _commands in SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
