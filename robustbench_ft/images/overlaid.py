"""Images over which something is drawn once they have a model's size, e.g. a watermark. Torch-free."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from .files import Bytes, Images, Ints


@dataclass(frozen=True)
class OverlaidImages:
    """The images of another split, drawn over. `raw` and `read` give them as they are stored.

    Whoever makes evaluation pixels calls `finish` on what the model's own transform returned.
    """

    images: Images
    draw: Callable[[Image.Image], Image.Image]  # RGB of the model's size -> RGB of the same size
    what: str  # names what is drawn and how

    def __len__(self) -> int:
        return len(self.images)

    def finish(self, image: Image.Image) -> Image.Image:
        """The image as a model sees it."""
        return self.draw(image)

    def read(self, indices: Sequence[int]) -> list[Image.Image]:
        return self.images.read(indices)

    def name(self, index: int) -> str:
        return self.images.name(index)

    def raw(self, index: int) -> bytes:
        return self.images.raw(index)

    def size(self, index: int) -> int:
        return self.images.size(index)

    def part(self, index: int, start: int, n: int) -> bytes:
        return self.images.part(index, start, n)

    def array(self) -> Bytes | None:
        return None

    def digest(self) -> str:
        return f"{self.images.digest()}+{self.what}"

    def fingerprint(self) -> str:
        return f"{self.images.fingerprint()}+{self.what}"

    def take(self, rows: Ints) -> "OverlaidImages":
        """Some of them."""
        images: Any = self.images
        return replace(self, images=images.take(rows))
