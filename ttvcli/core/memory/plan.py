"""Decide before anything is loaded where weights go and how finely a pass is cut, and count bytes.

Everything comes from configurations and the headers of weight files; importing this does not import
torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ttvcli.core.memory.footprint import (
    Clip,
    TextEncoderSizes,
    cpu_workspace,
    text_activations,
    transformer_activations,
)
from ttvcli.core.memory.vae_footprint import decode_footprint, encode_image_footprint
from ttvcli.core.models.cogvideox.config import CogVideoXConfig
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.core.models.vae.tiles import Tiling, tile_lengths

TILES = (8192, 2048, 512)  # tokens
WHOLE = 32 * 2**20  # bytes of an array of all tokens up to which a pass is better left whole
CHUNK_FRAMES = 9  # pixel frames of the longest chunk of the VAE
ONE_CHUNK = 3  # latent frames of it: no more are decoded in one go
RING = 2  # blocks that streamed weights take turns in
MIB = 2**20
CPU_RUNTIME = 400 * MIB  # Python, torch and its libraries
GPU_RUNTIME = 600 * MIB  # CUDA context and kernels; the rest of the runtime is on the host


@dataclass(frozen=True)
class NetworkBytes:
    """Bytes of a network's weights in the dtype they will have: outside and inside its blocks."""

    outside: int
    blocks: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """All weights."""
        return self.outside + sum(self.blocks)


@dataclass(frozen=True)
class Limits:
    """Bytes that may be used on the device and on the host (the same memory without a GPU)."""

    device: int
    host: int
    gpu: bool

    @property
    def room(self) -> int:
        """What is left for weights and arrays."""
        return self.device - (GPU_RUNTIME if self.gpu else CPU_RUNTIME)


@dataclass(frozen=True)
class Stage:
    """One network while it runs alone.

    Attributes:
        offload: where the blocks that are not resident wait: "none", "cpu" or "disk".
        resident: blocks that stay on the device, of `blocks`.
        weights, activations, caches: bytes on the device.
        host: bytes of weights that wait in host memory.
        tile: tokens treated at once; 0 where a pass is not cut.
    """

    name: str
    weights: int
    activations: int
    caches: int = 0
    offload: str = "none"
    resident: int = 0
    blocks: int = 0
    host: int = 0
    tile: int = 0

    @property
    def peak(self) -> int:
        """Most bytes on the device."""
        return self.weights + self.activations + self.caches


@dataclass(frozen=True)
class MemoryPlan:
    """The stages of sampling, one after the other: text encoder, transformer, VAE.

    Attributes:
        image: encoding of the first frame, for image-to-video.
    """

    text: Stage
    transformer: Stage
    vae: Stage
    limits: Limits
    image: Stage | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In the order in which they run."""
        first = () if self.image is None else (self.image,)
        return self.text, *first, self.transformer, self.vae

    @property
    def runtime(self) -> int:
        """Bytes of the device that libraries take."""
        return self.limits.device - self.limits.room

    @property
    def peak(self) -> int:
        """Most bytes on the device: of the largest stage, for each goes before the next comes."""
        return self.runtime + max(stage.peak for stage in self.stages)

    @property
    def largest(self) -> Stage:
        """The stage that decides the peak."""
        return max(self.stages, key=lambda stage: stage.peak)

    @property
    def fits(self) -> bool:
        """Whether device and host suffice."""
        return self.peak <= self.limits.device and all(
            stage.host <= self.limits.host for stage in self.stages
        )


def place_weights(
    name: str,
    network: NetworkBytes,
    activations: int,
    offload: str,
    limits: Limits,
    *,
    least: int = 0,
    fill: bool = True,
) -> Stage:
    """Where the weights go with one way of offloading; what does not fit is not refused here.

    Args:
        offload: "none", "cpu" or "disk".
        least: blocks that have to be resident.
        fill: keep as many blocks resident as there is room for, instead of `least`.
    """
    count = len(network.blocks)
    whole = Stage(name, network.total, activations, resident=count, blocks=count)
    if offload == "none" or count <= least:
        return whole
    block = max(network.blocks)
    room = limits.room - activations - network.outside - RING * block
    resident = max(least, min(room // block, count)) if fill else least
    if resident >= count - RING:  # no more than the ring itself would be saved
        resident = count if whole.peak <= limits.room else max(least, count - RING - 1)
    if resident == count:
        return whole
    waiting = sum(network.blocks[resident:])
    if offload == "disk":
        waiting = block if limits.gpu else 0  # what is read passes through pinned memory
    on_device = network.outside + sum(network.blocks[:resident])
    return replace(
        whole,
        weights=on_device + min(RING, count - resident) * block,
        offload=offload,
        resident=resident,
        host=waiting,
    )


def ways(offload: str, gpu: bool) -> tuple[str, ...]:
    """What `--offload` allows, quickest first; on a CPU, host memory is the device's."""
    if offload == "auto":
        return ("none", "cpu", "disk") if gpu else ("none", "disk")
    return ("none",) if offload == "cpu" and not gpu else (offload,)


def choose(
    name: str,
    network: NetworkBytes,
    activations: Callable[[int], int],
    limits: Limits,
    offload: str,
    *,
    tiles: tuple[int, ...],
    least: int = 0,
    fill: bool = True,
) -> Stage:
    """The quickest way that fits; the smallest one if none does."""
    smallest: Stage | None = None
    for way in ways(offload, limits.gpu):
        for tile in tiles:
            stage = place_weights(
                name, network, activations(tile), way, limits, least=least, fill=fill
            )
            stage = replace(stage, tile=tile)
            if stage.peak <= limits.room and stage.host <= limits.host:
                return stage
            if smallest is None or stage.peak < smallest.peak:
                smallest = stage
    assert smallest is not None
    return smallest


def plan_transformer(
    config: CogVideoXConfig,
    network: NetworkBytes,
    clip: Clip,
    size: int,
    limits: Limits,
    offload: str,
    *,
    fill: bool = True,
    tiles: tuple[int, ...] | None = None,
) -> Stage:
    """The denoiser; `size` is bytes of an element, `tiles` what to choose from."""
    if tiles is None:
        tiles = (0, *TILES) if clip.array(config.width, size) <= WHOLE else TILES
    workspace = 0 if limits.gpu else cpu_workspace(config, size)
    return choose(
        "transformer",
        network,
        lambda tile: workspace + transformer_activations(config, clip, size, tile),
        limits,
        offload,
        tiles=tiles,
        fill=fill,
    )


def plan_text(
    sizes: TextEncoderSizes,
    network: NetworkBytes,
    texts: int,
    tokens: int,
    size: int,
    limits: Limits,
    offload: str,
    *,
    fill: bool = True,
) -> Stage:
    """The text encoder, whose first block always stays: it holds the positions of all."""
    return choose(
        "text encoder",
        network,
        lambda _: text_activations(sizes, texts, tokens, size),
        limits,
        offload,
        tiles=(0,),
        least=1,
        fill=fill,
    )


def plan_vae(
    config: VAEConfig,
    weights: int,
    latents: tuple[int, int, int],
    size: int,
    gpu: bool,
    tiling: Tiling | None = None,
) -> Stage:
    """Decoding of latents of so many frames, rows and columns; the encoder is loaded with it.

    In tiles, one tile's arrays live at a time, and the caches and pixels of all tiles.
    """
    held = config.latent_channels * math.prod(latents) * size
    ratio = config.spatial_compression_ratio
    rows, columns = (tiling or Tiling()).latents(ratio)
    if tiling is None or (latents[1] <= rows.tile and latents[2] <= columns.tile):
        activations, caches = _decode_bytes(config, latents, size, gpu)
        return Stage("VAE", weights, held + activations, caches)
    tiles = [
        (height, width)
        for height in tile_lengths(latents[1], rows)
        for width in tile_lengths(latents[2], columns)
    ]
    activations, caches = 0, 0
    for height, width in tiles:
        live, kept = _decode_bytes(config, (latents[0], height, width), size, gpu)
        activations, caches = max(activations, live), caches + kept
    frames = CHUNK_FRAMES if latents[0] > 1 else 1
    pixels = sum(height * width for height, width in tiles) * ratio**2 * frames
    return Stage("VAE", weights, held + activations + 3 * pixels * size, caches)


def plan_image(
    config: VAEConfig, weights: int, picture: tuple[int, int], size: int, gpu: bool, images: int = 1
) -> Stage:
    """Encoding of first frames of so many rows and columns, never in tiles."""
    activations, caches = encode_image_footprint(config, *picture, size, gpu=gpu)
    return Stage("VAE encoder", weights, images * activations, images * caches)


def _decode_bytes(
    config: VAEConfig, latents: tuple[int, int, int], size: int, gpu: bool
) -> tuple[int, int]:
    """Activations and caches of decoding, at most."""
    activations, caches, _ = decode_footprint(config, latents, size, first=True, gpu=gpu)
    if latents[0] > ONE_CHUNK:
        later, _, _ = decode_footprint(config, latents, size, first=False, gpu=gpu)
        activations = max(activations, later)
    return activations, caches
