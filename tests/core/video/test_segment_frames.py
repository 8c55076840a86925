"""The frames of a segment are those that a viewer would see at these times."""

from pathlib import Path

import numpy as np
import pytest
from video_files import cut_short, make_video

from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.segment_frames import FrameChoice, read_segments

GREYS = [10 * i for i in range(24)]  # 12 frames a second, each of its own grey


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("v") / "v.mp4", values=GREYS, fps=12, size=(32, 16))


def shown(frames: np.ndarray) -> list[int]:
    return [round(float(frame.mean()) / 10) for frame in frames]


def test_a_count_is_spread_evenly_over_the_segment(video: Path) -> None:
    (only,) = read_segments(video, [(0.0, 2.0)], FrameChoice(count=4))
    assert only.times == [0.25, 0.75, 1.25, 1.75]
    assert shown(only.frames) == [3, 9, 15, 21]


def test_a_rate_starts_with_the_first_frame_of_the_segment(video: Path) -> None:
    (only,) = read_segments(video, [(0.5, 1.0)], FrameChoice(fps=12))
    assert shown(only.frames) == [6, 7, 8, 9, 10, 11]


def test_segments_may_overlap_and_come_in_any_order(video: Path) -> None:
    spans = [(1.0, 2.0), (0.0, 2.0), (0.0, 0.5)]
    found = {s.number: shown(s.frames) for s in read_segments(video, spans, FrameChoice(count=2))}
    assert found == {0: [15, 21], 1: [6, 18], 2: [1, 4]}


def test_a_segment_after_the_end_is_left_out(video: Path) -> None:
    found = read_segments(video, [(0.0, 1.0), (9.0, 12.0)], FrameChoice(count=2))
    assert [segment.number for segment in found] == [0]


def test_decoding_stops_when_nothing_more_is_wanted(video: Path, tmp_path: Path) -> None:
    long = make_video(tmp_path / "v.avi", codec="mjpeg", pixels="yuvj420p", frames=48, fps=12)
    short = cut_short(long, tmp_path / "short.avi", 0.7)
    (first,) = read_segments(short, [(0.0, 1.0)], FrameChoice(count=2))
    assert first.frames.shape == (2, 48, 64, 3)
    with pytest.raises(UnreadableVideo):
        list(read_segments(short, [(0.0, 1.0), (3.0, 4.0)], FrameChoice(count=2)))


def test_large_pictures_keep_their_shape_when_scaled_down(video: Path) -> None:
    (only,) = read_segments(video, [(0.0, 2.0)], FrameChoice(count=1, longest=16))
    assert only.frames.shape == (1, 8, 16, 3)
    (only,) = read_segments(video, [(0.0, 2.0)], FrameChoice(count=1, longest=64))
    assert only.frames.shape == (1, 16, 32, 3)


def test_all_frames_of_a_segment_have_one_size(tmp_path: Path) -> None:
    joined = tmp_path / "joined.h264"  # two recordings, one after the other
    parts = [make_video(tmp_path / f"{n}.h264", size=s) for n, s in ((0, (64, 48)), (1, (48, 64)))]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    (only,) = read_segments(joined, [(0.0, 0.9)], FrameChoice(count=4))
    assert only.frames.shape == (4, 48, 64, 3)


def test_a_choice_is_either_a_count_or_a_rate() -> None:
    with pytest.raises(ValueError, match="either"):
        FrameChoice()
    with pytest.raises(ValueError, match="either"):
        FrameChoice(count=2, fps=3)
