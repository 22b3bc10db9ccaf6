"""Send an exported folder to the hub of Hugging Face: the only place in this package that writes to a network."""

import importlib.util
import re
from pathlib import Path
from typing import Any

from robustbench_ft.errors import RbftError

from .folder import Export

REPO = re.compile(r"[\w.-]+/[\w.-]+")
INSTALL = "pip install 'robustbench_ft[hub]'"


def check(repo: str) -> None:
    """Raise `RbftError` where `repo` is no name of a repository, or no token is set."""
    if not REPO.fullmatch(repo):
        raise RbftError(f"--repo {repo}: write ORG/NAME")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise RbftError(f"rbft push needs huggingface_hub: {INSTALL}")
    from huggingface_hub import get_token

    if not get_token():
        raise RbftError("no token of Hugging Face is set: `hf auth login`, or HF_TOKEN; --dry-run needs none")


def push(export: Export, folder: Path, repo: str, private: bool = False) -> str:
    """Write the export into `folder`, and make it one commit of the model repository; returns its address."""
    check(repo)
    import huggingface_hub

    export.write(folder)
    api: Any = huggingface_hub.HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        found = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model exported by robustbench_ft")
    except (OSError, ValueError) as error:  # errors of the hub are of these kinds
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise RbftError(f"the hub did not take {repo}: {first}") from error
    return str(getattr(found, "commit_url", found))
