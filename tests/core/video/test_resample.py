"""Frame rate, clip length and chunks: pure rules, checked on numbers instead of pictures."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from video_files import make_video

from ttvcli.core.video.decode import open_video, scan
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.picture import PictureReader
from ttvcli.core.video.resample import (
    ClipPlan,
    ClipReader,
    check_clip_frames,
    enlarged,
    output_frames,
    plan_clips,
    resample,
    segment_count,
)


def steady(count: int, fps: int) -> list[tuple[Fraction, int]]:
    return [(Fraction(i, fps), i) for i in range(count)]


def run(frames: list[tuple[Fraction, int]], fps: int, seconds: Fraction) -> list[int]:
    return list(resample(frames, Fraction(fps), seconds))


@pytest.mark.parametrize("fps", [8, 16, 24, 30])
def test_the_same_rate_changes_nothing(fps: int) -> None:
    assert run(steady(40, fps), fps, Fraction(40, fps)) == list(range(40))


def test_half_the_rate_takes_every_second_frame() -> None:
    assert run(steady(32, 32), 16, Fraction(1)) == list(range(0, 32, 2))


def test_twice_the_rate_shows_each_frame_twice() -> None:
    # frame i + 1/2 is as near to i as to i + 1: the earlier one
    found = run(steady(4, 8), 16, Fraction(4, 8))
    assert found == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("source_fps", [Fraction(25), Fraction(30000, 1001), Fraction(24)])
def test_every_output_frame_is_the_nearest_in_time(source_fps: Fraction) -> None:
    frames = [(i / source_fps, i) for i in range(100)]
    found = list(resample(frames, Fraction(16), 100 / source_fps))
    assert len(found) == output_frames(100 / source_fps, Fraction(16))
    for number, chosen in enumerate(found):
        time = Fraction(number, 16)
        nearest = min(abs(time - stamp) for stamp, _ in frames)
        assert abs(time - frames[chosen][0]) == nearest


def test_a_variable_frame_rate_follows_the_clock_not_the_count() -> None:
    stamps = [0, 40, 50, 60, 70, 500, 1000]  # milliseconds
    frames = [(Fraction(ms, 1000), ms) for ms in stamps]
    # a frame each 100 ms: 0 70 70 500 500 500 500 ... by nearness
    found = run(frames, 10, Fraction(11, 10))
    assert found == [0, 70, 70, 500, 500, 500, 500, 500, 1000, 1000, 1000]


def test_one_frame_fills_its_own_duration() -> None:
    assert run([(Fraction(0), 7)], 16, Fraction(1, 2)) == [7] * 8


def test_resampling_holds_two_frames_at_most() -> None:
    alive = 0
    most = 0

    class Counted:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[tuple[Fraction, Counted]]:
        for i in range(500):
            yield Fraction(i, 30), Counted()

    count = 0
    for _ in resample(stream(), Fraction(16), Fraction(500, 30)):
        count += 1
    assert count == output_frames(Fraction(500, 30), Fraction(16))
    assert most <= 4  # two in the resampler, one in the loop, one being made


@pytest.mark.parametrize(
    ("frames", "plan"),
    [
        (48, ClipPlan(1, held=1, dropped=0)),  # exactly 3 s at 16 fps
        (49, ClipPlan(1, held=0, dropped=0)),
        (47, ClipPlan(0, held=0, dropped=47)),
        (97, ClipPlan(2, held=1, dropped=0)),
        (98, ClipPlan(2, held=0, dropped=0)),
        (120, ClipPlan(2, held=0, dropped=22)),
        (0, ClipPlan(0, held=0, dropped=0)),
    ],
)
def test_clips_follow_each_other_and_the_rest_is_counted(frames: int, plan: ClipPlan) -> None:
    assert plan_clips(frames, 49) == plan


def test_no_frame_is_lost_uncounted() -> None:
    for frames in range(300):
        plan = plan_clips(frames, 17)
        assert plan.clips * 17 - plan.held + plan.dropped == frames


@pytest.mark.parametrize("frames", [1, 9, 17, 49, 145, 289, 481, 1009])
def test_clip_lengths_of_every_stage_are_allowed(frames: int) -> None:
    check_clip_frames(frames)


@pytest.mark.parametrize("frames", [-7, 0, 8, 48, 50, 1008])
def test_other_clip_lengths_name_the_nearest_allowed(frames: int) -> None:
    with pytest.raises(ValueError, match="8k \\+ 1 such as"):
        check_clip_frames(frames)


def test_segments_are_three_seconds_each() -> None:
    lengths = (49, 145, 289, 481, 1009)
    assert [segment_count(n) for n in lengths] == [1, 3, 6, 10, 21]
    assert segment_count(17) == 1


def number_into(number: int, picture: np.ndarray) -> None:
    picture[...] = number


def test_a_clip_is_read_in_chunks_of_9_8_8() -> None:
    reader = ClipReader(iter(range(50)), number_into, 25, (4, 2))
    for start in (0, 25):
        chunks = list(reader.chunks())
        assert [chunk.shape for chunk in chunks] == [(9, 2, 4, 3), (8, 2, 4, 3), (8, 2, 4, 3)]
        assert np.concatenate(chunks)[:, 0, 0, 0].tolist() == list(range(start, start + 25))


def test_the_channels_of_a_chunk_are_planes() -> None:
    chunk = next(ClipReader(iter(range(9)), number_into, 9, (4, 2)).chunks())
    assert chunk.transpose(3, 0, 1, 2).flags.c_contiguous


def test_a_clip_that_is_one_frame_short_ends_with_its_last_frame_twice() -> None:
    reader = ClipReader(iter(range(16)), number_into, 17, (1, 1))
    frames = np.concatenate(list(reader.chunks()))[:, 0, 0, 0]
    assert frames.tolist() == [*range(16), 15]


def test_a_clip_that_is_shorter_than_planned_is_an_error() -> None:
    reader = ClipReader(iter(range(10)), number_into, 17, (1, 1))
    with pytest.raises(UnreadableVideo):
        list(reader.chunks())


def test_skipped_clips_are_not_converted_and_repeated_frames_once() -> None:
    converted = []

    def convert(i: int, picture: np.ndarray) -> None:
        converted.append(i)
        picture[...] = i

    twice = (i // 2 for i in range(34))  # as enlarging the frame rate gives
    pictures = iter([object() for _ in range(17)] + list(twice))
    reader = ClipReader(pictures, convert, 17, (1, 1))  # type: ignore[arg-type]
    reader.skip()
    assert converted == []
    frames = np.concatenate(list(reader.chunks()))[:, 0, 0, 0]
    assert frames.tolist() == [i // 2 for i in range(17)]
    assert converted == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]  # 4 is in two chunks


def test_pictures_are_converted_when_their_chunk_is_asked_for() -> None:
    made = 0

    def convert(_: int, picture: np.ndarray) -> None:
        nonlocal made
        made += 1

    asked = 0
    for chunk in ClipReader(iter(range(1009)), convert, 1009, (1, 1)).chunks():
        asked += len(chunk)
        assert made == asked
    assert made == 1009


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (100, 30), (30, 100), (128, 128)])
@pytest.mark.parametrize("rotation", [0, 90])
def test_pictures_get_exactly_the_wanted_size(
    tmp_path: Path, size: tuple[int, int], rotation: int
) -> None:
    path = make_video(tmp_path / "a.mov", frames=2, rotation=rotation, size=(62, 48))
    with open_video(path) as video:
        reader = PictureReader(video.info.sample_aspect, size)
        shapes = {reader(frame.picture).shape for frame in video.frames()}
    assert shapes == {(size[1], size[0], 3)}


def test_a_picture_is_cut_around_its_centre(tmp_path: Path) -> None:
    path = make_video(tmp_path / "wide.mp4", size=(128, 32), frames=2)
    with open_video(path) as video:
        reader = PictureReader(video.info.sample_aspect, (32, 32))
        picture = reader(next(video.frames()).picture)
    # the border between red and blue was in the middle and stays there
    assert picture[2, :12, 0].min() > 150
    assert picture[2, 20:, 2].min() > 150


def test_a_strip_that_would_grow_without_bound_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "strip.mkv", codec="ffv1", pixels="yuv444p", size=(8000, 1))
    with open_video(path) as video:
        reader = PictureReader(video.info.sample_aspect, (512, 512))
        with pytest.raises(UnreadableVideo) as caught:
            reader(next(video.frames()).picture)
    assert caught.value.reason_code == "too_large"


def test_enlargement_is_told() -> None:
    assert enlarged((1280, 720), (64, 64)) == 1
    assert enlarged((32, 64), (64, 64)) == 2


def test_a_real_length_gives_the_expected_frames(tmp_path: Path) -> None:
    found = scan(make_video(tmp_path / "a.mp4", frames=75, fps=25, size=(16, 16)))
    frames = output_frames(found.duration, Fraction(16))
    assert frames == 48
    assert plan_clips(frames, 49).clips == 1
