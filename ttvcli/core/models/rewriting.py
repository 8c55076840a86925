"""State dicts under other names and in other pieces, made one tensor at a time.

A table of recipes says for each name of the result which tensors it is made from and how. Nothing
is loaded until a tensor is asked for, so a checkpoint larger than memory can be translated.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """`make(*sources)`; it must also work on tensors of the device "meta"."""

    sources: tuple[str, ...]
    make: Callable[..., Tensor]


def renamed(source: str) -> Recipe:
    """The tensor itself, under another name."""
    return Recipe((source,), lambda tensor: tensor)


def joined(*sources: str) -> Recipe:
    """Tensors one behind the other along the first dimension."""
    return Recipe(sources, lambda *tensors: torch.cat(tensors))


def share(source: str, parts: tuple[int, ...], of: int) -> Recipe:
    """Some of the `of` equal parts of a tensor along its first dimension, in the given order."""

    def take(tensor: Tensor) -> Tensor:
        if len(tensor) % of:
            raise ValueError(f"{source} has {len(tensor)} rows, which do not make {of} parts")
        pieces = tensor.chunk(of)
        return pieces[parts[0]] if len(parts) == 1 else torch.cat([pieces[i] for i in parts])

    return Recipe((source,), take)


class Rewritten(Mapping[str, Tensor]):
    """A state dict made by recipes from another, which may itself be lazy.

    Raises:
        ValueError: a recipe asks for a tensor that is not there.
    """

    def __init__(self, source: Mapping[str, Tensor], recipes: Mapping[str, Recipe]) -> None:
        self.source = source
        self.recipes = recipes
        for name, recipe in recipes.items():
            missing = [part for part in recipe.sources if part not in source]
            if missing:
                raise ValueError(f"{name} is made from {missing[0]}, which is missing")

    def __getitem__(self, name: str) -> Tensor:
        recipe = self.recipes[name]
        return recipe.make(*(self.source[part] for part in recipe.sources))

    def __iter__(self) -> Iterator[str]:
        return iter(self.recipes)

    def __len__(self) -> int:
        return len(self.recipes)

    def like(self, name: str) -> Tensor:
        """Shape and dtype of a tensor, as one on the device "meta"."""
        known = getattr(self.source, "like", None)
        recipe = self.recipes[name]
        parts = (known(part) if known else self.source[part] for part in recipe.sources)
        return recipe.make(*(part.to("meta") for part in parts))


def in_dtype(source: Mapping[str, Tensor], dtype: torch.dtype) -> Rewritten:
    """The same tensors in another dtype; those that are not floating point stay."""

    def convert(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return Rewritten(source, {name: Recipe((name,), convert) for name in source})
