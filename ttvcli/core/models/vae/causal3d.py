"""CogVideoX's causal video VAE: pixels to latents and back, in chunks of time.

Shape legend: B batch, C channels, T frames, H W height and width, Z latent channels.
Pixels are `[B, 3, T, H, W]` in [-1, 1], latents `[B, Z, T', H', W']`, unscaled (the scaling factor
is the caller's). With the published ratio of 4 in time and 8 in space, `8k + 1` frames become
`2k + 1` latent frames and come back as `8k + 1`.

On a CPU, without gradients, `cpu` computes the same sums in another order.

Parameter names are those of diffusers' `AutoencoderKLCogVideoX`
(https://github.com/huggingface/diffusers); architecture: CogVideoX, https://arxiv.org/abs/2408.06072.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttvcli.core.models.vae import cpu
from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.core.models.vae.layers import (
    CausalConv3d,
    ConvCache,
    Downsample,
    ResBlock,
    SpatialNorm,
    Stage,
    Upsample,
    make_norm,
)

PIXEL_FRAMES_PER_CHUNK = 8
LATENT_FRAMES_PER_CHUNK = 2


def chunk_lengths(frames: int, per_chunk: int) -> list[int]:
    """Lengths of the chunks a clip is cut into: the first also takes the remainder.

    49 pixel frames by 8 give 9, 8, 8, 8, 8, 8; 13 latent frames by 2 give 3, 2, 2, 2, 2, 2.
    """
    chunks = max(frames // per_chunk, 1)
    first = frames - (chunks - 1) * per_chunk
    return [first] + [per_chunk] * (chunks - 1)


class Encoder(nn.Module):
    """Pixels of one chunk `[B, 3, T, H, W]` to mean and log-variance `[B, 2Z, T', H', W']`."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups, eps = config.block_out_channels, config.norm_num_groups, config.norm_eps
        self.conv_in = CausalConv3d(config.in_channels, widths[0], kernel=3)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            before = [widths[max(i - 1, 0)]] + [width] * (config.layers_per_block - 1)
            blocks = [ResBlock(c, width, groups, eps, None) for c in before]
            last = i == len(widths) - 1
            resample = None if last else Downsample(width, compress_time=i < config.time_stages)
            self.down_blocks.append(Stage(blocks, resample))
        middle = [ResBlock(widths[-1], widths[-1], groups, eps, None) for _ in range(2)]
        self.mid_block = Stage(middle, None)
        self.norm_out = make_norm(widths[-1], groups, eps, None)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels, kernel=3)

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        if cpu.suits(x):
            stages = [*self.down_blocks, self.mid_block]
            return cpu.run(self.conv_in, stages, self.norm_out, self.conv_out, x, None, cache)
        x = self.conv_in(x, cache)
        for stage in self.down_blocks:
            x = stage(x, None, cache)
        x = self.mid_block(x, None, cache)
        return self.conv_out(F.silu(self.norm_out(x)), cache)


class Decoder(nn.Module):
    """Latents of one chunk `[B, Z, T', H', W']` to pixels `[B, 3, T, H, W]`."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups, eps = (
            config.block_out_channels[::-1],
            config.norm_num_groups,
            config.norm_eps,
        )
        latent = config.latent_channels
        self.conv_in = CausalConv3d(latent, widths[0], kernel=3)
        middle = [ResBlock(widths[0], widths[0], groups, eps, latent) for _ in range(2)]
        self.mid_block = Stage(middle, None)
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            before = [widths[max(i - 1, 0)]] + [width] * config.layers_per_block
            blocks = [ResBlock(c, width, groups, eps, latent) for c in before]
            last = i == len(widths) - 1
            resample = None if last else Upsample(width, compress_time=i < config.time_stages)
            self.up_blocks.append(Stage(blocks, resample))
        self.norm_out = make_norm(widths[-1], groups, eps, latent)
        self.conv_out = CausalConv3d(widths[-1], config.out_channels, kernel=3)

    def forward(self, z: Tensor, cache: ConvCache) -> Tensor:
        if cpu.suits(z):
            stages = [self.mid_block, *self.up_blocks]
            return cpu.run(self.conv_in, stages, self.norm_out, self.conv_out, z, z, cache)
        x = self.conv_in(z, cache)
        x = self.mid_block(x, z, cache)
        for stage in self.up_blocks:
            x = stage(x, z, cache)
        return self.conv_out(F.silu(self.norm_out(x, z, cache)), cache)


class CausalVAE(nn.Module):
    """The autoencoder; `encode`/`decode` for whole clips, `*_chunks` for streams.

    The streaming pair holds one chunk and two frames per convolution, whatever the clip's length.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance (clamped to [-30, 20]), each `[B, Z, T', H', W']`.

        Args:
            pixels: `[B, 3, T, H, W]` in [-1, 1]; H and W multiples of the spatial ratio.

        Raises:
            ValueError: wrong rank, channels, or a height or width that does not divide.
        """
        self._check_pixels(pixels)
        lengths = chunk_lengths(pixels.shape[2], PIXEL_FRAMES_PER_CHUNK)
        parts = list(self.encode_chunks(pixels.split(lengths, dim=2)))
        return torch.cat([p[0] for p in parts], dim=2), torch.cat([p[1] for p in parts], dim=2)

    def encode_chunks(self, chunks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Encode a stream of pixel chunks (9, 8, 8, ... frames); yields (mean, log-variance)."""
        cache: ConvCache = {}
        for pixels in chunks:
            self._check_pixels(pixels)
            mean, logvar = self.encoder(pixels, cache).chunk(2, dim=1)
            yield mean, logvar.clamp(-30.0, 20.0)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `[B, 3, T, H, W]`, in about [-1, 1], of latents `[B, Z, T', H', W']`."""
        return torch.cat(list(self.decode_chunks(latents)), dim=2)

    def decode_chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """Decode two latent frames at a time (the first chunk takes three when T' is odd)."""
        if latents.ndim != 5 or latents.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"latents must be [B, {self.config.latent_channels}, T, H, W], "
                f"got {list(latents.shape)}"
            )
        cache: ConvCache = {}
        for part in latents.split(chunk_lengths(latents.shape[2], LATENT_FRAMES_PER_CHUNK), dim=2):
            yield self.decoder(part, cache)

    def init_weights(self) -> None:
        """Start for training: the network begins as a linear autoencoder of unit gain.

        Residual branches end in zeros, so that colours and places pass straight through from the
        first step (with PyTorch's defaults they fade by 1/sqrt(3) a layer, and thousands of steps
        go by before objects have colours). Decoder norms begin as plain GroupNorm.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, ResBlock):
                nn.init.zeros_(module.conv2.conv.weight)
            elif isinstance(module, SpatialNorm):
                nn.init.normal_(module.conv_y.conv.weight, std=0.02)
                nn.init.ones_(module.conv_y.conv.bias)  # type: ignore[arg-type]
                nn.init.normal_(module.conv_b.conv.weight, std=0.02)

    def _check_pixels(self, pixels: Tensor) -> None:
        ratio = self.config.spatial_compression_ratio
        if pixels.ndim != 5 or pixels.shape[1] != self.config.in_channels:
            raise ValueError(
                f"pixels must be [B, {self.config.in_channels}, T, H, W], got {list(pixels.shape)}"
            )
        height, width = pixels.shape[3:]
        if height % ratio or width % ratio:
            raise ValueError(f"height {height} and width {width} must be multiples of {ratio}")
