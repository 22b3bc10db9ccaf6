"""Features computed once, of the evaluation transform or of several augmented views of each image."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from robustbench_ft import Batch, Clip, Run, TrainSet
from robustbench_ft.recipe import Recipe
from robustbench_ft.train import Batches, FeatureBatches

CHUNK = 512  # images
Encode = Callable[[Tensor], Tensor]  # images [B, 3, H, W] -> what is kept of them, [B, N]


class Views(FeatureBatches):
    """A source of batches for methods that leave the image tower alone: `train` is [V, n, N], and `val` [n, N].

    With `views` 0 there is one view, of the evaluation transform; otherwise all are augmented as the recipe says. A
    batch takes a random view for each row, or with `in_turn` the view number step mod V for all.
    """

    def __init__(
        self, clip: Clip, data: TrainSet, run: Run, recipe: Recipe, views: int, encode: Encode, in_turn: bool = False
    ) -> None:
        self.labels, self.data, self.metric = torch.tensor(data.train.labels), data, data.metric
        self.run, self.in_turn, self.encode = run, in_turn, encode
        once = replace(recipe, steps=0, epochs=1, batch=CHUNK, shuffle=False)
        plain = replace(once, augment="none")
        clip.eval()
        total = max(1, views) * len(data.train) + len(data.val)
        with torch.no_grad(), clip.exact(), run.progress.bar("features", total, "images") as advance:

            def all_of(source: Batches, n: int) -> Tensor:
                rows: list[Tensor] = []
                for step in range(once.total_steps(n)):
                    rows.append(encode(source(step).images))
                    advance(len(rows[-1]))
                return torch.cat(rows)

            drawn = [Batches(clip, data.train, once, run.branch(f"view-{view}")) for view in range(views)]
            sources = drawn or [Batches(clip, data.train, plain, run)]
            self.train = torch.stack([all_of(source, len(data.train)) for source in sources])
            self.val = all_of(Batches(clip, data.val, plain, run), len(data.val))

    def rows(self, indices: list[int], step: int) -> Tensor:
        """What was kept of the images of one batch, [B, N]."""
        if self.in_turn:
            return self.train[step % len(self.train)][indices]
        views = torch.randint(len(self.train), (len(indices),), generator=self.run.generator("views", step))
        return self.train[views, indices]

    def batch(self, clip: Clip, indices: list[int], step: int, recipe: Recipe, run: Run) -> Batch:
        features = self.rows(indices, step)
        labels, of = self.labels[indices].to(clip.device), recipe.total_steps(len(self))
        return Batch(step, labels, features[:, :0], lambda _: features, torch.tensor(indices), of, features)
