"""Segments, and the order in which TTT reads them."""

import pytest
import torch

from ttvcli.core.models.ttt.order import Segments, last_row_source


def labelled(segments: Segments) -> tuple[torch.Tensor, torch.Tensor]:
    """Text tokens 0, 1, ... and video tokens 1000, 1001, ..."""
    video = segments.frames * segments.frame_tokens
    return torch.arange(segments.text_total)[None], 1000 + torch.arange(video)[None]


@pytest.mark.parametrize(
    ("seconds", "frames", "count"),
    [(3, 13, 1), (9, 37, 3), (18, 73, 6), (30, 121, 10), (63, 253, 21)],
)
def test_every_stage_has_windows_of_13_frames_that_share_one(seconds: int, frames: int, count: int):
    segments = Segments(count=count, frames=frames, frame_tokens=1350, text_tokens=498)
    assert segments.window_frames == 13
    assert segments.shared_frames == (1 if count > 1 else 0)
    assert segments.owned_tokens == [13 * 1350] + [12 * 1350] * (count - 1)
    assert sum(segments.owned_tokens) == frames * 1350


@pytest.mark.parametrize(("frames", "count"), [(24, 2), (25, 2), (13, 1), (14, 1), (11, 3), (7, 3)])
def test_even_and_odd_lengths_are_divided_without_loss(frames: int, count: int):
    segments = Segments(count=count, frames=frames, frame_tokens=2, text_tokens=3)
    text, video = labelled(segments)
    ordered = segments.to_time_order(text, video)
    assert sorted(ordered[0].tolist()) == sorted(torch.cat([text, video], dim=1)[0].tolist())
    back = segments.from_time_order(ordered)
    assert torch.equal(back[0], text)
    assert torch.equal(back[1], video)


def test_text_of_a_segment_comes_before_its_frames():
    segments = Segments(count=2, frames=5, frame_tokens=2, text_tokens=3)
    ordered = segments.to_time_order(*labelled(segments))[0].tolist()
    first = [0, 1, 2, *range(1000, 1006)]
    assert ordered == [*first, 3, 4, 5, *range(1006, 1010)]


def test_reverse_turns_video_token_by_token_and_text_block_by_block():
    segments = Segments(count=2, frames=3, frame_tokens=2, text_tokens=3)
    text, video = segments.reverse(*labelled(segments))
    assert text[0].tolist() == [3, 4, 5, 0, 1, 2]
    assert video[0].tolist() == [1005, 1004, 1003, 1002, 1001, 1000]
    again = segments.reverse(text, video)
    assert torch.equal(again[0], labelled(segments)[0])
    assert torch.equal(again[1], labelled(segments)[1])


@pytest.mark.parametrize(("frames", "count"), [(24, 2), (25, 2), (13, 1), (11, 3)])
def test_the_order_from_the_end_is_the_reversed_one_read_backwards(frames: int, count: int):
    segments = Segments(count=count, frames=frames, frame_tokens=2, text_tokens=3)
    text, video = labelled(segments)
    from_end = segments.to_time_order(text, video, from_end=True)
    turned = segments.to_time_order(*segments.reverse(text, video))
    assert torch.equal(from_end.flip(1), turned)
    back = segments.from_time_order(from_end, from_end=True)
    assert torch.equal(back[0], text)
    assert torch.equal(back[1], video)


@pytest.mark.parametrize(("frames", "count"), [(2, 3), (5, 3), (11, 0)])
def test_too_few_frames_for_the_segments_are_refused(frames: int, count: int):
    with pytest.raises(ValueError, match="segment"):
        Segments(count=count, frames=frames, frame_tokens=2, text_tokens=3)


def test_last_row_source_is_each_tokens_own_where_borders_align():
    segments = Segments(count=3, frames=7, frame_tokens=4, text_tokens=4)
    assert last_row_source(segments, 4, torch.device("cpu")).tolist() == list(range(40))


def test_last_row_source_mixes_tokens_where_borders_do_not_align():
    segments = Segments(count=3, frames=7, frame_tokens=4, text_tokens=4)
    source = last_row_source(segments, 8, torch.device("cpu"))
    assert (source != torch.arange(40)).any()


def test_last_row_source_refuses_a_partial_mini_batch():
    segments = Segments(count=3, frames=7, frame_tokens=4, text_tokens=5)
    with pytest.raises(ValueError, match="43 tokens do not divide by 8"):
        last_row_source(segments, 8, torch.device("cpu"))
