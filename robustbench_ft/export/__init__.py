"""A run as a folder that others load: weights, a model card with its numbers, and what Hugging Face reads."""

from .folder import Export as Export
from .folder import export as export
from .push import check as check
from .push import push as push
