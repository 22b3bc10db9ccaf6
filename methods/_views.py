"""Features of several augmented views of each image, computed once."""

from collections.abc import Callable

import torch
from torch import Tensor

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.pixels.loader import Loader
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Features

CHUNK = 512  # images


class Views(Features):
    """A source of batches: `train` is [V, N, D], `val` [N, D], both as `encode` gives them.

    Without `views` there is one, of the evaluation transform. A batch takes for each row a view drawn at random, or
    with `in_turn` the same view for all rows: number step mod V.
    """

    def __init__(
        self, clip: Clip, data: TrainSet, run: Run, recipe: Recipe, views: int, in_turn: bool,
        encode: Callable[[Tensor], Tensor],
    ) -> None:  # fmt: skip
        self.labels, self.data, self.metric = torch.tensor(data.train.labels), data, data.metric
        self.run, self.in_turn = run, in_turn
        loaders = Loader(clip, data.train, run.workers), Loader(clip, data.val, run.workers)
        total = max(1, views) * len(data.train) + len(data.val)
        clip.eval()
        with torch.no_grad(), clip.exact(), run.progress.bar("features", total, "images") as advance:

            def one(loader: Loader, view: int, augment: bool) -> Tensor:
                rows: list[Tensor] = []
                n = len(loader.split)
                for start in range(0, n, CHUNK):
                    places = list(range(start, min(start + CHUNK, n)))
                    generator = run.generator(f"view-{view}", start)
                    pixels = loader.augmented(places, recipe.augment if augment else "none", generator)
                    rows.append(encode(loader.normalise(pixels)))
                    advance(len(places))
                return torch.cat(rows)

            self.train = torch.stack([one(loaders[0], view, views > 0) for view in range(max(1, views))])
            self.val = one(loaders[1], 0, False)

    def rows(self, indices: list[int], step: int) -> Tensor:
        """The features [B, D] of one batch."""
        if self.in_turn:
            return self.train[step % len(self.train)][indices]
        generator = self.run.generator("views", step)
        return self.train[torch.randint(len(self.train), (len(indices),), generator=generator), indices]

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch:
        features = self.rows(indices, step)
        labels, of = self.labels[indices].to(clip.device), recipe.total_steps(len(self))
        return Batch(step, labels, features[:, :0], lambda _: features, torch.tensor(indices), of, features)
