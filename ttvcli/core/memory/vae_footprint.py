"""Bytes and operations of decoding with the causal VAE, found by walking through its layers.

Decoding goes two latent frames at a time (three in the first chunk of an odd number) and keeps two
frames of the input of each convolution, so none of this depends on the length of the video.
Importing this does not import torch.
"""

from dataclasses import dataclass

from ttvcli.core.models.vae.config import VAEConfig

KERNEL = 27  # weights of a 3x3x3 convolution for one channel in and out
PAST = 2  # frames it looks back
UNFOLDED = 20480  # channels x frames x rows up to which a CPU unfolds


@dataclass
class _Walk:
    """Counts while it goes through the decoder; sizes in elements."""

    frames: int
    height: int
    width: int
    gpu: bool
    size_of_element: int
    caches: int = 0
    peak: int = 0
    multiplications: int = 0

    @property
    def area(self) -> int:
        """Places of a frame."""
        return self.height * self.width

    def live(self, *arrays: int) -> None:
        """So many elements live at once, in arrays and in what is kept so far."""
        self.peak = max(self.peak, sum(arrays))

    def size(self, channels: int, more_frames: int = 0) -> int:
        """Elements of an array at the present resolution."""
        return channels * (self.frames + more_frames) * self.area

    def convolve(self, inside: int, outside: int, beside: int) -> None:
        """A causal convolution whose input lives on, with `beside` elements of others."""
        given, joined, made = self.size(inside), self.size(inside, PAST), self.size(outside)
        self.live(beside, given, joined, made, self.workspace(inside, made))
        self.caches += inside * PAST * self.area
        self.multiplications += KERNEL * inside * made

    def workspace(self, inside: int, made: int) -> int:
        """What a convolution needs beside input and output."""
        if self.gpu:
            return 0
        # PyTorch's rule for leaving a small fp32 convolution to its own code, which unfolds it.
        rows = inside * (self.frames + PAST) * self.height
        if self.size_of_element == 4 and rows <= UNFOLDED:
            return KERNEL * self.size(inside)
        return self.size(inside, PAST) + made  # oneDNN's own order of input and output

    def residual(self, inside: int, outside: int) -> None:
        """`ResBlock` with the decoder's norms."""
        given, made = self.size(inside), self.size(outside)
        self.live(3 * given)  # input, normalised, its scale or shift
        self.convolve(inside, outside, beside=given)
        self.live(given, 3 * made)
        self.convolve(outside, outside, beside=given + made)
        if inside != outside:
            self.multiplications += inside * made

    def enlarge(self, channels: int, *, in_time: bool) -> None:
        """`Upsample`: repeat frames, rows and columns, then convolve each frame."""
        before = self.size(channels)
        if in_time and self.frames > 1:
            self.frames = 2 * self.frames - self.frames % 2
        longer = self.size(channels)
        self.live(before, 2 * longer)
        self.height, self.width = 2 * self.height, 2 * self.width
        wide = self.size(channels)
        self.live(longer, wide, wide, 0 if self.gpu else 2 * wide)
        self.multiplications += 9 * channels * wide


def decode_footprint(
    config: VAEConfig, latents: tuple[int, int, int], size: int, *, first: bool, gpu: bool
) -> tuple[int, int, int]:
    """One chunk: bytes of activations at most, of caches kept, and multiplications.

    Args:
        latents: frames, height and width of the whole video's latents.
        size: bytes of an element.
        first: whether it is the first chunk, which may hold a frame more.
        gpu: convolutions need no memory there but for input and output.
    """
    frames = min(2, latents[0])
    if first and latents[0] > 2:
        frames += latents[0] % 2
    walk = _Walk(frames, latents[1], latents[2], gpu, size)
    widths = config.block_out_channels[::-1]
    walk.convolve(config.latent_channels, widths[0], beside=0)
    for _ in range(2):
        walk.residual(widths[0], widths[0])
    for i, channels in enumerate(widths):
        before = [widths[max(i - 1, 0)]] + [channels] * config.layers_per_block
        for inside in before:
            walk.residual(inside, channels)
        if i < len(widths) - 1:
            walk.enlarge(channels, in_time=i < config.time_stages)
    walk.live(3 * walk.size(widths[-1]))
    walk.convolve(widths[-1], config.out_channels, beside=0)
    return walk.peak * size, walk.caches * size, walk.multiplications


def decode_flops(config: VAEConfig, latents: tuple[int, int, int]) -> int:
    """Floating-point operations of decoding a whole video."""
    first, later = (
        decode_footprint(config, latents, 2, first=f, gpu=True)[2] for f in (True, False)
    )
    return 2 * (first + (max(1, latents[0] // 2) - 1) * later)
