"""What can be asked of a text tower."""

import open_clip

from robustbench_ft import Clip

NO_END = "its text tower does not end at an end token"


def has_end_token(clip: Clip) -> bool:
    """Whether `clip.encode_embedded` answers: the tower is causal, and pools at the end token."""
    return isinstance(clip.model, open_clip.CLIP) and clip.model.text_pool_type == "argmax"
