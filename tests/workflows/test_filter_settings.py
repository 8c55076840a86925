"""What `prep filter` can be told: every threshold, which filters run; and what its page shows."""

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY
from video_files import make_video

from ttvcli.cli.settings import resolve
from ttvcli.core.filters.harmful import CATEGORIES
from ttvcli.core.video import decode
from ttvcli.errors import UsageError
from ttvcli.workflows import filter_job
from ttvcli.workflows.filter import FilterConfig, run
from ttvcli.workflows.filter_job import ALL_FILTERS, chosen
from ttvcli.workflows.filter_measure import Task, measure_source
from ttvcli.workflows.filter_state import key_of, read_state, write_state
from ttvcli.workflows.process_pool import Message
from ttvcli.workflows.video_sources import find_sources

THRESHOLDS = [(name, item.name) for name, e in ALL_FILTERS.items() for item in fields(e.limits)]
PLACE = {"source": "in", "out": Path("out")}


def value_of(config: Any, name: str, threshold: str) -> Any:
    return getattr(getattr(config, name), threshold)


@pytest.mark.parametrize(("name", "threshold"), THRESHOLDS)
def test_every_threshold_can_be_set_by_flag_and_file(
    tmp_path: Path, name: str, threshold: str
) -> None:
    default = value_of(FilterConfig(**PLACE), name, threshold)
    other = 7 if isinstance(default, int) else 0.75
    assert other != default
    file = tmp_path / "mine.toml"
    file.write_text(f"[filter.{name}]\n{threshold} = {other}\n")
    for given in ({"sets": [f"{name}.{threshold}={other}"]}, {"config_files": [file]}):
        found = resolve(FilterConfig, "filter", flags=PLACE, environ={}, **given)
        assert value_of(found.config, name, threshold) == other
        assert len(found.origins) == 1 + len(PLACE)


@pytest.mark.parametrize("profile", ["strict", "lenient", "any-size"])
def test_profiles_are_files_of_thresholds_that_exist(profile: str) -> None:
    found = resolve(FilterConfig, "filter", flags=PLACE, environ={}, presets={"profile": profile})
    keys = found.origins.keys() - PLACE.keys()
    assert keys
    assert {tuple(key.split(".")) for key in keys} <= set(THRESHOLDS)
    assert (REPOSITORY / "configs" / "profile" / f"{profile}.toml").is_file()


def names(**changes: Any) -> list[str]:
    return [entry.name for entry in chosen(FilterConfig(**PLACE, **changes), ())]


def test_filters_are_added_and_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    default = names()
    assert default == [name for name, entry in ALL_FILTERS.items() if entry.default]
    assert names(exclude=("blur", "cuts")) == [n for n in default if n not in ("blur", "cuts")]
    for name in set(ALL_FILTERS) - set(default):
        for why in ("", "no weights"):
            entry = replace(ALL_FILTERS[name], missing=lambda why=why: why, with_models=None)
            monkeypatch.setitem(filter_job.ALL_FILTERS, name, entry)
            if why:
                with pytest.raises(UsageError, match="no weights") as caught:
                    names(include=(name,))
                assert "--without" not in caught.value.fix  # nothing runs it but --with
            else:
                assert set(names(include=(name,))) == {*default, name}


def test_what_runs_unasked_needs_nothing_that_is_not_always_there() -> None:
    assert all(entry.missing is None for entry in ALL_FILTERS.values() if entry.default)


def test_one_decoding_feeds_all_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "in" / "v.mp4", frames=40, fps=10, size=(160, 96))
    opened, decoded = [], 0
    real_open, real_decode = decode._open_container, decode.Video._decode

    def open_container(url: str, limit: dict[str, str]) -> Any:
        opened.append(url)
        return real_open(url, limit)

    def counting(self: decode.Video) -> Iterator[Any]:
        nonlocal decoded
        for picture in real_decode(self):
            decoded += 1
            yield picture

    monkeypatch.setattr(decode, "_open_container", open_container)
    monkeypatch.setattr(decode.Video, "_decode", counting)
    (source,) = find_sources(tmp_path / "in").videos
    filters = tuple(name for name, e in ALL_FILTERS.items() if not (e.missing and e.missing()))
    task = Task(source, key_of(source), tmp_path / "out", filters, thumbnails=True)
    assert measure_source(task, lambda value: None) == {"frames": 40, "failed": None}
    assert len(filters) >= 14
    assert (len(opened), decoded) == (1, 40)


def test_the_page_has_a_sheet_for_each_reason_and_every_threshold(tmp_path: Path) -> None:
    small: dict[str, Any] = {"size": (64, 48), "fps": 16}
    make_video(tmp_path / "in" / "short.mp4", frames=8, **small)
    make_video(tmp_path / "in" / "black.mp4", values=[0] * 64, **small)
    make_video(tmp_path / "in" / "fine.mp4", frames=64, **small)

    def inline(tasks: Any) -> Iterator[Message]:
        for task in tasks:
            yield Message(task, "done", measure_source(task, lambda value: None))

    page = tmp_path / "r.html"
    left_out = ("size", "bitrate", "repeats", "motion", "blocks", "blur", "near_duplicate")
    asked = FilterConfig(
        source=str(tmp_path / "in"), out=tmp_path / "out", report=page, exclude=left_out
    )
    assert run(asked, measurer=inline).dropped_by_reason == {"black": 1, "too_short": 1}
    text = page.read_text()
    dropped, _, distributions = text.partition("Distributions and thresholds")
    for code, name in (("too_short", "short.mp4"), ("black", "black.mp4")):
        _, _, sheet = dropped.partition(f"Dropped: {code} (1)")
        sheet = sheet.partition("Dropped: ")[0]
        assert name in sheet
        assert sheet.count("data:image/jpeg") == 1
        assert f"{code}: " in sheet  # with what was measured and the limit
    for entry in chosen(asked, ()):
        for rule in entry.rules:
            assert f"{entry.name}.{rule.limit}: " in distributions
    assert distributions.count("<svg") >= 5
    every = distributions.partition("All thresholds")[2]
    for entry in chosen(asked, ()):
        for item in fields(entry.limits):
            assert f"{entry.name}.{item.name}<" in every


def test_thresholds_that_are_no_plain_rule_are_shown_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow motion by repeated frames, and scores of harm, which depend on more than one number."""
    make_video(tmp_path / "in" / "v.mp4", frames=64, fps=16)
    only = tuple(name for name in ALL_FILTERS if name != "repeats")
    page = tmp_path / "r.html"
    unseen = [name for name in CATEGORIES if name != "sexual"]

    def scored(tasks: Any) -> Iterator[Message]:
        for task in tasks:
            done = measure_source(task, lambda value: None)
            state = read_state(task.out, task.key) or {}
            scores = {"frames": 4, "sexual_max": 0.5, "sexual_second": 0.25, "sexual_p90": 0.1}
            scores |= {"unchecked": unseen, "failed": []}
            state["metrics"]["harmful"] = scores
            state["filters"]["harmful"] = ALL_FILTERS["harmful"].version
            write_state(task.out, task.key, state)
            yield Message(task, "done", done)

    monkeypatch.setitem(
        filter_job.ALL_FILTERS,
        "harmful",
        replace(ALL_FILTERS["harmful"], missing=None, with_models=None),
    )
    asked = FilterConfig(
        source=str(tmp_path / "in"),
        out=tmp_path / "out",
        report=page,
        include=("harmful",),
        exclude=tuple(name for name in only if name != "harmful"),
    )
    run(asked, measurer=scored)
    text = page.read_text()
    assert "repeats: repeated<" in text
    assert "repeats.repeated: share of repeated frames in a moving video, at most" in text
    assert "harmful: sexual_second<" in text
    assert "harmful.second: " in text
    assert "harmful: frames<" in text
    assert "by number of videos: gore 1, violence 1, weapons 1" in text
    assert "sexual 1" not in text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["harm_unchecked"] == dict.fromkeys(unseen, 1)
