"""The order in which TTT reads a video of several 3 s segments.

Shape legend: B batch, n segments, L text tokens of a segment, S tokens of a latent frame,
T latent frames, D width.

The trunk keeps `text_BMD` (M = n*L, segment after segment) and `video_BND` (N = T*S, frame after
frame). TTT reads in time order: text 0, frames of segment 0, text 1, frames of segment 1, ...
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """How T latent frames are divided among n segments.

    The first segment owns `T // n + T mod n` frames, every later one `T // n`; 63 s are 13 + 20*12.
    A window (what local attention sees) is as long as the first segment, so neighbouring windows
    share `T mod n` frames: 1 for every multiple of 3 s, none for a single segment.

    Raises:
        ValueError: fewer frames than segments, or windows would share more than they own.
    """

    count: int
    frames: int
    frame_tokens: int
    text_tokens: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"there must be at least 1 segment, got {self.count}")
        if self.shared_frames > self.step_frames or self.step_frames == 0:
            raise ValueError(
                f"{self.frames} latent frames do not divide into {self.count} segments: "
                f"{self.step_frames} frames each leave {self.shared_frames} over"
            )

    @property
    def step_frames(self) -> int:
        """Frames between the starts of two neighbouring windows."""
        return self.frames // self.count

    @property
    def shared_frames(self) -> int:
        return self.frames % self.count

    @property
    def window_frames(self) -> int:
        return self.step_frames + self.shared_frames

    @property
    def text_total(self) -> int:
        return self.count * self.text_tokens

    @property
    def owned_tokens(self) -> list[int]:
        """Video tokens of each segment when every frame belongs to one."""
        later = [self.step_frames * self.frame_tokens] * (self.count - 1)
        return [self.window_frames * self.frame_tokens, *later]

    def to_time_order(self, text_BMD: Tensor, video_BND: Tensor, from_end: bool = False) -> Tensor:
        """Interleave text and video of the segments along axis 1.

        With `from_end` the result is to be read from its last token to its first: it is then what
        `to_time_order(*reverse(text, video))` is, but the video stays as it lies in memory.
        """
        texts = text_BMD.split(self.text_tokens, dim=1)
        if from_end:
            videos = video_BND.split(self.owned_tokens[::-1], dim=1)
            pairs = zip(videos, (text.flip(1) for text in texts), strict=True)
        else:
            pairs = zip(texts, video_BND.split(self.owned_tokens, dim=1), strict=True)
        return torch.cat([part for pair in pairs for part in pair], dim=1)

    def from_time_order(self, x_BLD: Tensor, from_end: bool = False) -> tuple[Tensor, Tensor]:
        """Undo `to_time_order`: text `[B, M, D]` and video `[B, N, D]`."""
        lengths = [n for owned in self.owned_tokens for n in (self.text_tokens, owned)]
        parts = x_BLD.split(lengths[::-1] if from_end else lengths, dim=1)
        texts, videos = parts[0::2], parts[1::2]
        if from_end:
            texts, videos = tuple(text.flip(1) for text in videos), texts
        if self.count == 1:
            return texts[0], videos[0]
        return torch.cat(texts, dim=1), torch.cat(videos, dim=1)

    def reverse(self, text_BMD: Tensor, video_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Turn time around; its own inverse.

        Video tokens are reversed one by one (frames, rows and columns), text only segment by
        segment: inside a segment it still reads forwards. As the first segment owns one frame
        more in either direction, a border frame meets another text on the way back.
        """
        blocks = text_BMD.unflatten(1, (self.count, self.text_tokens))
        return blocks.flip(1).flatten(1, 2), video_BND.flip(1)


def last_row_source(segments: Segments, mini_batch: int, device: torch.device) -> Tensor:
    """Where each token takes its learning rate from in checkpoints of the public kernels.

    Those build the rates of whole mini-batches in trunk order (all text, then all video) and only
    then interleave, and of the interleaved copies they read the one owned by the last token of
    each mini-batch. Position j of a mini-batch thus gets the rate of token j of the trunk-order
    mini-batch in which the mini-batch's last token was.

    Returns:
        `[L]` long: for each position in time order, the position in time order to read.

    Raises:
        ValueError: L is not a multiple of the mini-batch, for which there is no such rule.
    """
    text, video = segments.text_total, segments.frames * segments.frame_tokens
    length = text + video
    if length % mini_batch:
        raise ValueError(
            f"learning-rate mode 'last-row' needs whole mini-batches: "
            f"{length} tokens do not divide by {mini_batch}"
        )
    trunk = torch.arange(length, device=device)
    trunk_of_time = segments.to_time_order(trunk[None, :text], trunk[None, text:])[0]
    time_of_trunk = torch.empty_like(trunk_of_time)
    time_of_trunk[trunk_of_time] = trunk
    owner = trunk_of_time.view(-1, mini_batch)[:, -1] // mini_batch
    row = owner[:, None] * mini_batch + torch.arange(mini_batch, device=device)
    return time_of_trunk[row.flatten()]
