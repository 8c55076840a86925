"""Joint attention over text and video, within 3 s windows.

Shape legend: B batch, n windows, M = n*L text tokens, N video tokens, S tokens of a frame,
H heads, K head width, D width, W tokens of a window with its text.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ttvcli.core.models.ttt.order import Segments
from ttvcli.core.models.ttt.rotary import rotate

QK_NORM_EPS = 1e-6
SHORT_WINDOW = 512  # tokens
LONG_WINDOW = 4096
QUERIES_AT_ONCE = 256


class LocalAttention(nn.Module):
    """Each window attends over its own text and frames; what windows share is averaged.

    With one segment this is full attention over [text | video], as CogVideoX has it.
    """

    def __init__(self, width: int, heads: int, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.norm_q = nn.LayerNorm(self.head_width, eps=QK_NORM_EPS)
        self.norm_k = nn.LayerNorm(self.head_width, eps=QK_NORM_EPS)
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(width, width, bias=bias)
        self.to_v = nn.Linear(width, width, bias=bias)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(
        self, text_BMD: Tensor, video_BND: Tensor, segments: Segments, rotary: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return new text and video tokens; `rotary` is for one window, text included."""
        joint = torch.cat([text_BMD, video_BND], dim=1)
        q, k, v = (
            self.split_heads(into_windows(projection(joint), segments))
            for projection in (self.to_q, self.to_k, self.to_v)
        )
        mixed = self.mix(q, k, v, rotary)

        text, video = from_windows(mixed, segments)
        joint = self.to_out(torch.cat([text, video], dim=1))
        text, video = joint.split([text.shape[1], video.shape[1]], dim=1)
        return text, video

    def mix(self, q: Tensor, k: Tensor, v: Tensor, rotary: Tensor | None) -> Tensor:
        """Attention of windows `[bn, H, W, K]`, of any number of heads, to `[bn, W, H*K]`."""
        q, k = self.norm_q(q).to(v.dtype), self.norm_k(k).to(v.dtype)
        if rotary is not None:
            # Every window counts time from 0 again.
            q, k = rotate(q, rotary), rotate(k, rotary)
        return rearrange(attend(q, k, v), "bn h w k -> bn w (h k)")

    def split_heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "bn w (h k) -> bn h w k", k=self.head_width)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of `[batch, heads, tokens, K]`, by the quickest way there is.

    On a CPU in bfloat16 the fused kernel is slow at both ends: backward of short windows takes
    half the time when the matrices are multiplied one by one, long ones run faster in blocks of
    queries. Softmax adds up in fp32 whatever it reads.
    """
    tokens = k.shape[-2]
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        if q.requires_grad and tokens <= SHORT_WINDOW:
            # Scaling q is cheaper than scaling the products.
            return torch.softmax((q * q.shape[-1] ** -0.5) @ k.mT, dim=-1) @ v.contiguous()
        if not q.requires_grad and tokens >= LONG_WINDOW:
            return attend_in_blocks(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same for one head and a block of queries after the other; without gradients."""
    out = torch.empty_like(q)
    keys = (k * q.shape[-1] ** -0.5).mT
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            transposed, values = keys[row, head].contiguous(), v[row, head].contiguous()
            queries = q[row, head].split(QUERIES_AT_ONCE)
            for part, result in zip(queries, out[row, head].split(QUERIES_AT_ONCE), strict=True):
                torch.mm(torch.softmax(part @ transposed, dim=-1), values, out=result)
    return out


def into_windows(joint_BLD: Tensor, segments: Segments) -> Tensor:
    """`[B, M+N, D]` to `[B*n, W, D]`: text of a segment, then its frames and the shared ones."""
    if segments.count == 1:
        return joint_BLD
    text = joint_BLD[:, : segments.text_total]
    video = joint_BLD[:, segments.text_total :]
    text = rearrange(text, "b (n l) d -> b n l d", n=segments.count)
    frames = rearrange(video, "b (t s) d -> b t s d", t=segments.frames)
    windows = frames.unfold(1, segments.window_frames, segments.step_frames)
    windows = rearrange(windows, "b n s d t -> b n (t s) d")
    return torch.cat([text, windows], dim=2).flatten(0, 1)


def from_windows(windows: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
    """Undo `into_windows`: text `[B, M, D]`, video `[B, N, D]` with shared frames averaged."""
    text = windows[:, : segments.text_tokens]
    video = windows[:, segments.text_tokens :]
    if segments.count == 1:
        return text, video
    text = rearrange(text, "(b n) l d -> b (n l) d", n=segments.count)
    video = rearrange(
        video, "(b n) (t s) d -> b n t s d", n=segments.count, t=segments.window_frames
    )
    step, shared = segments.step_frames, segments.shared_frames
    own, tail = video[:, :, :step], video[:, :, step:]
    head = torch.cat([own[:, :1, :shared], (own[:, 1:, :shared] + tail[:, :-1]) / 2], dim=1)
    own = torch.cat([head, own[:, :, shared:]], dim=2)
    frames = torch.cat([own.flatten(1, 2), tail[:, -1]], dim=1)
    return text, frames.flatten(1, 2)
