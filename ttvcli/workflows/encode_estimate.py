"""How much disk and time `prep encode` takes, from the VAE's config alone."""

import os
from typing import Any

_BYTES_PER_VALUE = 2  # bf16
_HEADER_BYTES = 1024
# Sustained fp32 arithmetic of this VAE. A CPU core gets faster with the width of the layers, as
# measured; for the GPU it is a guess at a data-centre card.
_CPU_CORE_FLOPS = 60e9
_CPU_CORE_FLOPS_PER_CHANNEL = 0.4e9
_GPU_FLOPS = 60e12
_DECODED_PER_SECOND = 300  # frames, both passes, one thread
_MAX_CORES = 16


def bytes_per_clip(vae: dict[str, Any], frames: int, size: tuple[int, int]) -> int:
    """Bytes of the latents of one clip on disk."""
    channels = int(vae.get("latent_channels", 16))
    time = int(vae.get("temporal_compression_ratio", 4))
    space = 2 ** (len(_widths(vae)) - 1)
    latent_frames = (frames - 1) // time + 1
    values = channels * latent_frames * (size[0] // space) * (size[1] // space)
    return 2 * values * _BYTES_PER_VALUE + _HEADER_BYTES


def seconds_per_clip(vae: dict[str, Any], frames: int, size: tuple[int, int], device: str) -> float:
    """Rough seconds to encode one clip."""
    if device.startswith("cuda"):
        rate = _GPU_FLOPS
    else:
        core = min(_CPU_CORE_FLOPS, _CPU_CORE_FLOPS_PER_CHANNEL * max(_widths(vae)))
        rate = core * min(os.cpu_count() or 1, _MAX_CORES)
    return encode_flops(vae, frames, size) / rate + frames / _DECODED_PER_SECOND


def encode_flops(vae: dict[str, Any], frames: int, size: tuple[int, int]) -> float:
    """Multiplications and additions of the encoder's convolutions for one clip."""
    widths = _widths(vae)
    blocks = int(vae.get("layers_per_block", 3))
    halvings = int(vae.get("temporal_compression_ratio", 4)).bit_length() - 1
    places = float(frames * size[0] * size[1])
    total = 27.0 * int(vae.get("in_channels", 3)) * widths[0] * places
    before = widths[0]
    for stage, width in enumerate(widths):
        for _ in range(blocks):
            total += 27 * (before * width + width * width) * places
            before = width
        if stage < len(widths) - 1:
            places /= 8 if stage < halvings else 4
            total += 9 * width * width * places
    total += 4 * 27 * widths[-1] ** 2 * places
    total += 27 * widths[-1] * 2 * int(vae.get("latent_channels", 16)) * places
    return 2 * total


def _widths(vae: dict[str, Any]) -> list[int]:
    return [int(width) for width in vae.get("block_out_channels", (128, 256, 256, 512))]
