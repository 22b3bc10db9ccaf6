"""What ends a fit and is no error of the code, in one line: memory that ran out, a method that ends the process."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import RbftError
from .memory import ran_out


@contextmanager
def named(method: str, recipe: Mapping[str, Any] | None) -> Generator[None, None, None]:
    """Raise `RbftError` where memory runs out in here, with what would need less, or where `sys.exit` is called."""
    try:
        yield
    except SystemExit as error:
        raise RbftError(
            f"method '{method}' called sys.exit({error.code!r}), which would end the whole command: let it raise "
            "RbftError with what is wrong"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RbftError) or not ran_out(error):
            raise
        raise RbftError(f"out of memory in method '{method}'{_advice(recipe)}") from error


def _advice(recipe: Mapping[str, Any] | None) -> str:
    """What to change: gradients of parts of a batch add up to those of the whole batch."""
    if recipe is None:
        return ": use a machine with more, or fewer processes beside it"
    batch, part = int(recipe.get("batch", 0)), int(recipe.get("micro_batch", 0))
    least = max(1, (part or batch) // 4)
    return (
        f" with batch {batch}, micro_batch {part or batch}: --set micro_batch={least} needs less and gives the same "
        f"gradients; or --set batch={max(1, batch // 2)}"
    )
