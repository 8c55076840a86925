"""`ttv prep filter` on copies and on harm: the best copy stays and is named, harm is dropped."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Ran, run_ttv
from vision_model import save_classifier

from ttvcli.core.filters import harm_filter
from ttvcli.core.filters.decode_pass import measure
from ttvcli.core.video.encode import write_video
from ttvcli.workflows import filter_job

CLIP = (160, 96)
WITHOUT = "duration,size,fps,bitrate,bars,exposure,repeats,cuts,motion,blur,blocks"


def film(seed: int, seconds: float = 2.0, fps: int = 12, size: tuple[int, int] = CLIP) -> Any:
    """Frames with large moving detail; the seed chooses the film."""
    generator = np.random.default_rng(seed)
    waves = generator.uniform(-50, 50, (24, 3))
    y, x = np.mgrid[: size[1], : size[0]] / np.array(size[::-1])[:, None, None]
    for index in range(round(seconds * fps)):
        time = index / fps
        picture = sum(np.sin(a * x + b * y + 0.05 * c * time + a) for a, b, c in waves)
        grey = (128 + 14 * picture).clip(0, 255).astype(np.uint8)
        yield np.repeat(grey[..., None], 3, axis=2)


def filtered(folder: Path, out: Path, *words: str) -> tuple[Ran, dict[str, dict[str, Any]]]:
    """Run the command and return the lines of the manifest by file name."""
    done = run_ttv(
        *("prep", "filter", folder, "--out", out, "--workers", "1", "--json", "--quiet"),
        *("--without", WITHOUT, *words),
    )
    lines = (out / "manifest.jsonl").read_text().splitlines()
    return done, {record["source"]: record for record in map(json.loads, lines)}


def test_the_best_of_several_copies_stays_and_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    large = (320, 192)
    write_video(raw / "a-small.mp4", film(1), 12)
    write_video(raw / "b-large.mp4", film(1, size=large), 12, crf=12)
    write_video(raw / "c-coarse.mp4", film(1, size=large), 12, crf=32)
    barred = (np.pad(picture, ((16, 16), (0, 0), (0, 0))) for picture in film(1))
    write_video(raw / "d-barred.mp4", barred, 12)
    cropped = (picture[5:-5, 8:-8] for picture in film(1))
    write_video(raw / "e-cropped.mp4", cropped, 12)
    write_video(raw / "f-trimmed.mp4", [*film(1)][5:], 12)
    write_video(raw / "g-other.mp4", film(2), 12)
    done, records = filtered(raw, tmp_path / "clean")
    assert done.code == 0, done.stderr
    kept = {name for name, record in records.items() if record["keep"]}
    assert kept == {"b-large.mp4", "g-other.mp4"}
    for name in records.keys() - kept:
        assert records[name]["duplicate_of"] == "b-large.mp4"
        assert records[name]["reasons"][0].startswith("near_duplicate: the same pictures (")
    # Another threshold needs no decoding.
    done, records = filtered(
        *(raw, tmp_path / "clean", "--rethreshold", "--set", "near_duplicate.bits=0")
    )
    assert done.json["measured"] == 0
    assert records["f-trimmed.mp4"]["keep"]


def test_a_plain_video_is_flagged_as_not_compared(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("one", "two"):
        grey = np.full((96, 160, 3), 90 + len(name), np.uint8)
        grey[0, 0] = 200 if name == "one" else 0
        write_video(raw / f"{name}.mp4", [grey] * 12, 12)
    _, records = filtered(raw, tmp_path / "clean", "--set", "exact_duplicate.copies=9")
    for record in records.values():
        assert record["keep"]
        assert record["flags"] == ["uncompared: too plain or too short to be compared with others"]


class Scripted:
    """A checker that finds what it is told to find."""

    name = "scripted"
    categories = ("gore",)

    def __init__(self, score: float) -> None:
        self.value = score

    def score(self, frame: np.ndarray) -> dict[str, float]:
        assert frame.shape == (256, 427, 3)
        return {"gore": self.value}


@pytest.mark.parametrize(
    ("score", "codes"), [(0.1, []), (0.9, ["harmful"]), (float("nan"), ["harm_check_failed"])]
)
def test_scores_of_sampled_frames_become_findings(
    score: float, codes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, film(1), 12)
    monkeypatch.setattr(harm_filter, "load_checkers", lambda folders: (Scripted(score),))
    entry = harm_filter.FILTER
    metrics = measure(path, [entry]).metrics
    assert metrics["harmful"]["frames"] == 4
    assert "sexual" in metrics["harmful"]["unchecked"]
    assert [found.code for found in entry.findings(metrics, entry.limits())] == codes


def test_a_model_folder_that_cannot_be_used_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(filter_job.MODELS_VARIABLE, str(tmp_path / "nothing"))
    write_video(tmp_path / "clip.mp4", film(1, seconds=0.5), 12)
    done = run_ttv("prep", "filter", tmp_path, "--out", tmp_path / "out", "--with", "harmful")
    assert done.code == 2
    assert "TTV_HARM_MODELS" in done.stderr


def test_what_other_models_measured_is_not_taken_for_ours() -> None:
    folders = [(), (Path("a"),), (Path("b"),), (Path("a"), Path("b"))]
    assert len({harm_filter.with_models(found).version for found in folders}) == 4
    assert harm_filter.with_models(()) is harm_filter.FILTER


def test_pictures_of_what_is_harmful_are_never_shown() -> None:
    assert not harm_filter.FILTER.shown


@pytest.mark.slow
def test_a_model_folder_drops_what_it_finds_through_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # sees it everywhere
    folder = save_classifier(tmp_path / "model", ["normal", "gore"], bias=[-9.0, 9.0])
    raw = tmp_path / "raw"
    raw.mkdir()
    write_video(raw / "clip.mp4", film(1), 12)
    monkeypatch.setenv(filter_job.MODELS_VARIABLE, str(folder))
    done = run_ttv(
        *("prep", "filter", raw, "--out", tmp_path / "clean", "--workers", "1", "--quiet"),
        *("--with", "harmful", "--without", WITHOUT, "--set", "patience=280"),
        process=True,
    )
    assert done.code == 0, done.stderr
    (record,) = map(json.loads, (tmp_path / "clean" / "manifest.jsonl").read_text().splitlines())
    assert not record["keep"]
    assert record["reasons"][0].startswith("harmful: gore: second worst frame 1.00")
    assert "gore" not in record["metrics"]["harmful"]["unchecked"]
    assert "weapons" in record["metrics"]["harmful"]["unchecked"]
