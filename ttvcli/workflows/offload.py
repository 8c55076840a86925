"""Load the large networks of a model as the memory plan says: resident, or streamed in part."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ttvcli.core.device import DTYPES, release_unused
from ttvcli.core.memory.plan import Stage
from ttvcli.core.memory.streaming import place
from ttvcli.core.memory.tiling import forward_in_tiles
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.core.models.text.t5 import T5Encoder
from ttvcli.workflows import components
from ttvcli.workflows.memory_plan import BLOCKS, check_memory
from ttvcli.workflows.sample_request import Request


class Denoiser(nn.Module):
    """The transformer, in tiles of so many tokens or (0) whole."""

    def __init__(self, network: CogVideoXTransformer, tile: int) -> None:
        super().__init__()
        self.network, self.tile, self.config = network, tile, network.config

    def forward(
        self, latents: Tensor, text: Tensor, timestep: Tensor, ofs: Tensor | None = None
    ) -> Tensor:
        if not self.tile:
            return self.network(latents, text, timestep, ofs)
        return forward_in_tiles(self.network, latents, text, timestep, ofs, tile=self.tile)


def load_denoiser(request: Request, device: torch.device, videos: int = 1) -> Denoiser:
    """The transformer for so many videos at once.

    Raises:
        WouldNotFit: no way of running it keeps within the limits.
    """
    stage = check_memory(request, videos).transformer
    network = _load(request, "transformer", stage, device)
    assert isinstance(network, CogVideoXTransformer)
    return Denoiser(network, stage.tile)


def load_text_encoder(request: Request, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Token ids [texts, L] to embeddings [texts, L, E], each text as if it were alone.

    Raises:
        WouldNotFit: see `load_denoiser`.
    """
    stage = check_memory(request).text
    encoder = _load(request, "text_encoder", stage, device)
    if stage.offload == "none":
        return lambda ids: torch.cat([encoder(row) for row in ids.split(1)])
    return encoder


def _load(request: Request, component: str, stage: Stage, device: torch.device) -> nn.Module:
    network, weights = components.without_data(request.folder, component)
    is_text = component == "text_encoder"
    dtype = DTYPES[request.config.dtype]
    network = network.cast(dtype) if isinstance(network, T5Encoder) else network.to(dtype)
    release_unused(device)
    ring = place(
        network.eval(),
        _blocks(network, BLOCKS[component]),
        BLOCKS[component],
        weights.read_into,
        device=device,
        resident=stage.resident,
        from_disk=stage.offload == "disk",
        cyclic=not is_text,
        by_row=is_text and stage.offload != "none",
    )
    if ring is not None:
        weakref.finalize(network, ring.close)
    return network


def _blocks(network: nn.Module, prefix: str) -> nn.ModuleList:
    blocks = network.get_submodule(prefix.rstrip("."))
    assert isinstance(blocks, nn.ModuleList)
    return blocks
