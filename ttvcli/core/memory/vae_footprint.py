"""Bytes and operations of the causal VAE, found by walking through its layers.

Decoding goes two latent frames at a time (three in the first chunk of an odd number) and keeps two
frames of the input of each convolution, so none of this depends on the length of the video.
Importing this does not import torch.
"""

from dataclasses import dataclass

from ttvcli.core.models.vae.config import VAEConfig
from ttvcli.core.models.vae.cpu_blocks import PAST, WORTH_BLOCKS, blocks

KERNEL = 27  # weights of a 3x3x3 convolution for one channel in and out
UNFOLDED = 20480  # channels x frames x rows up to which a CPU unfolds
FP32 = 4


@dataclass
class _Walk:
    """Counts what the layers as written take, on a GPU; sizes in elements.

    Attributes:
        caches: what is kept by the convolutions so far.
        peak: of arrays that live at once, at most.
        peak_of_first: the same with the caches, which only come to be in a clip's first chunk.
    """

    frames: int
    height: int
    width: int
    size_of_element: int
    caches: int = 0
    peak: int = 0
    peak_of_first: int = 0
    multiplications: int = 0

    @property
    def area(self) -> int:
        """Places of a frame."""
        return self.height * self.width

    def live(self, *arrays: int) -> None:
        """So many elements live at once, beside what is kept."""
        self.peak = max(self.peak, sum(arrays))
        self.peak_of_first = max(self.peak_of_first, self.caches + sum(arrays))

    def size(self, channels: int, more_frames: int = 0) -> int:
        """Elements of an array at the present resolution."""
        return channels * (self.frames + more_frames) * self.area

    def convolve(self, inside: int, outside: int, beside: int, made: int) -> None:
        """A causal convolution to an array of `made`, with `beside` elements of others."""
        given, joined = self.size(inside), self.size(inside, PAST)
        self.count(inside, outside)
        self.live(beside, given, joined, made)

    def count(self, inside: int, outside: int) -> None:
        """What a convolution keeps and multiplies."""
        self.caches += inside * PAST * self.area
        self.multiplications += KERNEL * inside * self.size(outside)

    def residual(self, inside: int, outside: int) -> None:
        """`ResBlock`, counted with the decoder's norms."""
        given, made = self.size(inside), self.size(outside)
        self.live(3 * given)  # input, normalised, its scale or shift
        self.convolve(inside, outside, beside=given, made=made)
        self.live(given, 3 * made)
        self.convolve(outside, outside, beside=given + made, made=made)
        if inside != outside:
            self.multiplications += inside * made

    def enlarge(self, channels: int, *, in_time: bool) -> None:
        """`Upsample`: repeat frames, rows and columns, then convolve each frame."""
        before, longer, wide = self.grow(channels, in_time=in_time)
        self.live(before, 2 * longer)
        self.live(longer, wide, wide)
        self.multiplications += 9 * channels * wide

    def grow(self, channels: int, *, in_time: bool) -> tuple[int, int, int]:
        """Go to the next resolution; sizes before, with more frames, and enlarged."""
        before = self.size(channels)
        if in_time and self.frames > 1:
            self.frames = 2 * self.frames - self.frames % 2
        longer = self.size(channels)
        self.height, self.width = 2 * self.height, 2 * self.width
        return before, longer, self.size(channels)

    def shrink(self, channels: int) -> None:
        """`Downsample` of a frame: pad, then convolve every other place."""
        before = self.size(channels)
        self.height, self.width = self.height // 2, self.width // 2
        made = self.size(channels)
        self.live(2 * before, made)
        self.multiplications += 9 * channels * made

    def last(self, width: int, outside: int) -> None:
        """Norm, and the convolution to pixels or latents."""
        self.live(3 * self.size(width))
        self.convolve(width, outside, beside=0, made=self.size(outside))


class _CpuWalk(_Walk):
    """The same for `ttvcli.core.models.vae.cpu`; operations are those of the layers as written."""

    def convolve(self, inside: int, outside: int, beside: int, made: int) -> None:
        """To a new array of `made`, or added to one of those beside it where `made` is 0.

        The room of a new array is not written to before the next convolution.
        """
        self.count(inside, outside)
        workspace = self._workspace(inside, outside, adds=not made)
        self.live(beside, self.size(inside, PAST), made, workspace)

    def residual(self, inside: int, outside: int) -> None:
        """Input, an array for either convolution, and another where the width changes."""
        given, made = self.size(inside), self.size(outside)
        changed = made if inside != outside else 0
        self.convolve(inside, outside, beside=given, made=made)
        self.convolve(outside, outside, beside=given + changed, made=0)
        if changed:
            self.multiplications += inside * made

    def enlarge(self, channels: int, *, in_time: bool) -> None:
        frames, height, width = self.frames, self.height, self.width
        before, longer, wide = self.grow(channels, in_time=in_time)
        self.multiplications += 9 * channels * wide
        if frames * height * width < WORTH_BLOCKS:
            self.live(before, longer, wide, wide, 2 * wide)
            return
        rows = _largest_block(frames, height, 2 * width * channels)
        block = rows[0] * rows[1] * width * channels
        self.live(before, wide, block, 4 * block, block, 16 * channels**2)

    def last(self, width: int, outside: int) -> None:
        self.convolve(width, outside, beside=self.size(width), made=self.size(outside))

    def _workspace(self, inside: int, outside: int, *, adds: bool) -> int:
        """What a convolution needs beside input and output."""
        if self.frames * self.area < WORTH_BLOCKS:
            return self._small(inside, outside)
        paired = self.frames - self.frames % 2
        row = self.width * max(inside, outside)
        frames, rows = _largest_block(paired or 1, self.height, row)
        given = (frames + PAST) * (rows + 2) * self.width * inside
        made = frames * rows * self.width * outside
        # The place of a new array that a block is for takes no memory before it is written to.
        if not paired:
            return KERNEL // 3 * inside * outside + given + (made if adds else 0)
        differences = frames // 2 * (rows + 2) * self.width * inside
        results = 5 * made // 2 - (0 if adds else made)
        return 4 * KERNEL // 3 * inside * outside + given + differences + results

    def _small(self, inside: int, outside: int) -> int:
        """Input and output in the usual order, and what the library makes of them."""
        given, made = self.size(inside, PAST), self.size(outside)
        # PyTorch's rule for leaving a small fp32 convolution to its own code, which unfolds it.
        rows = inside * (self.frames + PAST) * self.height
        if self.size_of_element == FP32 and rows <= UNFOLDED:
            return given + made + KERNEL * self.size(inside)
        return 2 * (given + made)


def _largest_block(frames: int, height: int, row: int) -> tuple[int, int]:
    """Frames and rows of the first block, which is the largest."""
    part, rows = next(blocks(frames, height, row))
    return part.stop - part.start, rows.stop - rows.start


def decode_footprint(
    config: VAEConfig, latents: tuple[int, int, int], size: int, *, first: bool, gpu: bool
) -> tuple[int, int, int]:
    """One chunk: bytes of activations at most, of caches kept, and multiplications.

    Args:
        latents: frames, height and width of the whole video's latents.
        size: bytes of an element.
        first: whether it is the first chunk, which may hold a frame more; its activations are
            those beyond the caches that there are in the end.
        gpu: the layers as they are written; convolutions need only input and output there.
    """
    frames = min(2, latents[0])
    if first and latents[0] > 2:
        frames += latents[0] % 2
    walk = (_Walk if gpu else _CpuWalk)(frames, latents[1], latents[2], size)
    widths = config.block_out_channels[::-1]
    walk.convolve(config.latent_channels, widths[0], beside=0, made=walk.size(widths[0]))
    for _ in range(2):
        walk.residual(widths[0], widths[0])
    for i, channels in enumerate(widths):
        before = [widths[max(i - 1, 0)]] + [channels] * config.layers_per_block
        for inside in before:
            walk.residual(inside, channels)
        if i < len(widths) - 1:
            walk.enlarge(channels, in_time=i < config.time_stages)
    walk.last(widths[-1], config.out_channels)
    peak = walk.peak_of_first - walk.caches if first else walk.peak
    return peak * size, walk.caches * size, walk.multiplications


def encode_image_footprint(
    config: VAEConfig, height: int, width: int, size: int, *, gpu: bool
) -> tuple[int, int]:
    """Encoding of one frame of so many pixels: bytes of activations at most, and of caches."""
    walk = (_Walk if gpu else _CpuWalk)(1, height, width, size)
    widths = config.block_out_channels
    walk.convolve(config.in_channels, widths[0], beside=0, made=walk.size(widths[0]))
    for i, channels in enumerate(widths):
        for inside in [widths[max(i - 1, 0)]] + [channels] * (config.layers_per_block - 1):
            walk.residual(inside, channels)
        if i < len(widths) - 1:
            walk.shrink(channels)
    for _ in range(2):
        walk.residual(widths[-1], widths[-1])
    walk.last(widths[-1], 2 * config.latent_channels)
    return (walk.peak_of_first - walk.caches) * size, walk.caches * size


def decode_flops(config: VAEConfig, latents: tuple[int, int, int]) -> int:
    """Floating-point operations of decoding a whole video."""
    first, later = (
        decode_footprint(config, latents, 2, first=f, gpu=True)[2] for f in (True, False)
    )
    return 2 * (first + (max(1, latents[0] // 2) - 1) * later)
