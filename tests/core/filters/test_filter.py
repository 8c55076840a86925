"""The contract of filters, over the whole table: rules, findings, comparisons, statistics."""

import tracemalloc
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from video_files import make_video

from ttvcli import catalog
from ttvcli.core.filters.decode_pass import THUMBNAILS, measure
from ttvcli.core.filters.exact_duplicate import ExactDuplicateLimits, find_exact
from ttvcli.core.filters.filter import Candidate, Filter, Spread, rounded
from ttvcli.core.video.errors import UnreadableVideo

FILTERS: dict[str, Filter] = {name: catalog.get("filter", name) for name in catalog.FILTERS}


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_is_whole(name: str) -> None:
    entry = FILTERS[name]
    assert entry.name == name
    assert entry.about
    assert is_dataclass(entry.limits)
    assert all(item.metadata.get("help") for item in fields(entry.limits))
    known = {item.name for item in fields(entry.limits)}
    assert {rule.limit for rule in entry.rules} <= known
    assert entry.facts or entry.meter or entry.compare


def test_every_metric_of_a_rule_is_measured(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames=30, size=(320, 180))
    runnable = [entry for entry in FILTERS.values() if not (entry.missing and entry.missing())]
    found = measure(path, runnable, thumbnails=True)
    for entry in runnable:
        assert {rule.metric for rule in entry.rules} <= set(found.metrics[entry.name])
    assert len(found.thumbnails) == THUMBNAILS
    assert found.thumbnails[0].shape == (72, 128, 3)
    assert (found.clip.frames, found.clip.duration) == (30, 2.5)


def test_measuring_twice_gives_the_same_numbers(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames=30)
    default = [entry for entry in FILTERS.values() if entry.default]
    assert measure(path, default).metrics == measure(path, default).metrics


def test_the_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    default = [entry for entry in FILTERS.values() if entry.default]

    def peak(frames: int) -> int:
        path = make_video(tmp_path / f"{frames}.mp4", frames=frames, size=(160, 90), fps=12)
        measure(path, default)  # imports and tables that stay
        tracemalloc.start()
        measure(path, default, thumbnails=True)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # Beyond the six seconds in which bars are looked for, and the eight looks that wait for flows.
    assert peak(960) < 1.2 * peak(192)


def test_a_single_frame_is_measured(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames=1)
    found = measure(path, [e for e in FILTERS.values() if e.default], thumbnails=True)
    assert found.clip.frames == 1
    assert len(found.thumbnails) == 1


def test_damage_is_an_error_not_a_number(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(UnreadableVideo):
        measure(tmp_path / "v.mp4", list(FILTERS.values()))


def test_a_spread_stays_small_and_keeps_its_median() -> None:
    spread = Spread(bound=64)
    for value in range(100_000):
        spread.add(value)
    assert len(spread.values) < 64
    assert spread.median() == pytest.approx(50_000, rel=0.05)
    assert Spread().median() is None
    assert Spread().mean() is None


@pytest.mark.parametrize(("value", "shown"), [(-0.0004, 0.0), (None, None), (float("nan"), None)])
def test_metrics_are_what_json_can_hold(value: float | None, shown: float | None) -> None:
    assert str(rounded(value)) == str(shown)


def test_the_first_of_equal_files_is_kept_and_named() -> None:
    candidates = [
        Candidate(name, sha, None, ()) for name, sha in zip("abcde", "xyxxy", strict=True)
    ]
    found = [(copy.name, copy.of) for copy in find_exact(candidates, ExactDuplicateLimits())]
    assert found == [("c", "a"), ("d", "a"), ("e", "b")]
    assert [c.name for c in find_exact(candidates, ExactDuplicateLimits(copies=2))] == ["d"]
