"""CogVideoX, with and without TTT layers. Importing this does not import torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ttvcli.core.models.cogvideox.config import CogVideoXConfig

if TYPE_CHECKING:
    from ttvcli.core.models.cogvideox.model import CogVideoXTransformer


@dataclass(frozen=True)
class Family:
    """A model family: its config class and how to build the network from a config."""

    name: str
    config: type[CogVideoXConfig]
    build: "Callable[[CogVideoXConfig], CogVideoXTransformer]"


def build(config: CogVideoXConfig) -> "CogVideoXTransformer":
    """Build the network; weights are torch's defaults until loaded or `init_weights`."""
    from ttvcli.core.models.cogvideox.model import CogVideoXTransformer

    return CogVideoXTransformer(config)


FAMILY = Family(name="cogvideox", config=CogVideoXConfig, build=build)
