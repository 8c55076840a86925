"""`ttv eval world`: its figures, and that they survive being killed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Ran, run_ttv
from PIL import Image
from tiny_model import TinyData, write_model

from ttvcli.artifacts.manifest import read_manifest
from ttvcli.core.world.checker import check_clip
from ttvcli.core.world.grammar import parse
from ttvcli.core.world.render import render_clip
from ttvcli.core.world.sampling import sample_scene
from ttvcli.workflows.eval_partial import result_of, short
from ttvcli.workflows.eval_world import EvalWorldConfig, run, wilson
from ttvcli.workflows.step import Silent


def ttv_eval(data: TinyData, *words: str | Path) -> Ran:
    """Three prompts, two steps."""
    model = () if "--model" in words else ("--model", data.model)
    fixed = ("--prompts", "3", "--steps", "2", "--set", "batch=2", "--device", "cpu")
    return run_ttv("eval", "world", *model, *fixed, *words)


@pytest.fixture(scope="module")
def made(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with its contact sheet; read-only."""
    out = tmp_path_factory.mktemp("eval") / "world.json"
    ran = ttv_eval(tiny_data, "-o", out, "--contact-sheet", out.with_suffix(".png"))
    assert ran.code == 0, ran.stderr
    assert ran.stdout == f"{out}\n{out.with_suffix('.png')}\n"
    assert "colour:" in ran.stderr
    return out


def test_the_report_compares_the_model_with_the_truth(made: Path) -> None:
    report = json.loads(made.read_text())
    assert report["kind"] == "report"
    assert report["n"] == 3
    for column in ("generated", "reconstructed_truth", "rendered_truth"):
        for score in ("colour", "shape", "motion", "correct"):
            entry = report[column][score]
            low, high = entry["interval"]
            assert 0 <= low <= entry["share"] <= high <= 1
            assert entry["n"] <= 3
    # Only some captions name the background, and only those count.
    named = [clip["background"] for clip in report["clips"] if clip["background"] is not None]
    assert report["generated"].get("background", {"n": 0})["n"] == len(named)
    assert len({clip["prompt"] for clip in report["clips"]}) == 3
    assert [clip["seed"] for clip in report["clips"]] == [42, 43, 44]
    assert all(report["made_from"].values())
    assert not made.with_suffix(".partial").exists()
    assert min(Image.open(made.with_suffix(".png")).size) >= 3 * 16


def test_figures_depend_on_seed_and_settings_only(
    tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    again, other = tmp_path / "again.json", tmp_path / "other.json"
    assert ttv_eval(tiny_data, "-o", again).code == 0
    assert again.read_bytes() == made.read_bytes()
    assert ttv_eval(tiny_data, "-o", other, "--seed", "7").code == 0
    prompts = [[c["prompt"] for c in json.loads(p.read_text())["clips"]] for p in (again, other)]
    assert prompts[0] != prompts[1]


class Killed(Exception):
    """Stands for a signal that nothing can handle."""


class Stop(Silent):
    """Ends the process, as it were, when so many clips have been checked."""

    def __init__(self, clips: int) -> None:
        self.left = clips
        self.stage = ""

    def start(self, description: str, *_: Any, **__: Any) -> None:
        self.stage = description

    def advance(self, n: int = 1, **fields: Any) -> None:
        if self.stage in ("checking", "reconstructing the truth"):
            self.left -= 1
        if self.left < 0:
            raise Killed


@pytest.mark.parametrize("clips", [pytest.param(0, marks=pytest.mark.slow), 1, 3])
def test_a_killed_run_goes_on_and_ends_the_same(
    clips: int, tiny_data: TinyData, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvalWorldConfig(
        model=str(tiny_data.model),
        out=tmp_path / "world.json",
        prompts=3,
        steps=2,
        batch=2,
        device="cpu",
    )
    with pytest.raises(Killed):
        run(config, Stop(clips))
    partial = tmp_path / "world.partial" / "results.jsonl"
    assert len(read_manifest(partial)) == 1 + clips + 1
    with partial.open("a") as file:
        file.write('{"part": "gener')
    checked: list[int] = []

    def counted(frames: Any, asked: Any) -> Any:
        checked.append(1)
        return check_clip(frames, asked)

    monkeypatch.setattr("ttvcli.core.world.checker.check_clip", counted)
    run(config)
    assert config.out.read_bytes() == made.read_bytes()
    # Whole batches of generated clips are kept, and every clip of the truth.
    assert len(checked) == {0: 3 + 6, 1: 1 + 6, 3: 0 + 4}[clips]
    assert [p.name for p in tmp_path.iterdir()] == ["world.json"]


@pytest.mark.slow
def test_frames_of_the_sheet_are_made_again_after_a_kill(
    tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "world.png"
    config = EvalWorldConfig(
        model=str(tiny_data.model),
        out=tmp_path / "world.json",
        contact_sheet=sheet,
        prompts=3,
        steps=2,
        batch=2,
        device="cpu",
    )
    with pytest.raises(Killed):
        run(config, Stop(1))
    run(config)
    assert sheet.read_bytes() == made.with_suffix(".png").read_bytes()
    assert config.out.read_bytes() == made.read_bytes()


@pytest.mark.slow
def test_results_of_other_settings_are_not_taken(
    tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    config = {"model": str(tiny_data.model), "prompts": 3, "batch": 2, "device": "cpu"}
    out = tmp_path / "world.json"
    with pytest.raises(Killed):
        run(EvalWorldConfig(out=out, steps=1, **config), Stop(1))
    run(EvalWorldConfig(out=out, steps=2, **config))
    assert out.read_bytes() == made.read_bytes()


def test_a_second_run_does_nothing_and_other_settings_need_force(
    tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    out = shutil.copy(made, tmp_path / "world.json")
    ran = ttv_eval(tiny_data, "-o", out, "--json")
    assert "there already" in ran.stderr
    assert ran.json["n"] == 3
    assert "clips" not in ran.json
    for dry in ([], ["--dry-run"]):
        ran = ttv_eval(tiny_data, "-o", out, "--guidance", "2", *dry)
        assert ran.code == 2
        assert "made with settings" in ran.stderr
    assert ttv_eval(tiny_data, "-o", out, "--guidance", "2", "--force").code == 0
    assert json.loads(out.read_text())["settings"]["guidance"] == 2.0


def test_plain_results_become_results_again() -> None:
    scene = sample_scene(np.random.default_rng(0), "heldout", objects=1)
    asked = parse(scene.segments[0].caption)
    assert asked is not None
    result = check_clip(render_clip(scene, 64), asked)
    assert result.found
    plain = json.loads(json.dumps(short(result)))
    assert json.loads(json.dumps(short(result_of(plain)))) == plain
    assert result_of(plain).correct is result.correct is True


@pytest.mark.parametrize(("share", "n"), [(0.95, 128), (0.5, 3), (1.0, 40)])
def test_the_interval_is_wilsons(share: float, n: int) -> None:
    """Its ends are the p from which the observed share is 1.96 standard deviations away."""
    for edge in wilson(share, n):
        if edge < 1:
            deviation = (edge * (1 - edge) / n) ** 0.5
            assert abs(edge - share) == pytest.approx(1.96 * deviation)
    assert wilson(0.0, 10) == pytest.approx([0.0, 0.2775], abs=1e-4)


BAD: list[tuple[list[str], int, str]] = [
    (["--prompts", "0"], 2, "--prompts"),
    (["--set", "prompts=0"], 2, "prompts and batch must be at least 1"),
    (["--steps", "0"], 2, "--steps"),
    (["--sampler", "dmp++2m"], 2, "did you mean dpm++2m"),
    (["--seed", "-1"], 2, "--seed must be"),
    (["-o", "world.txt"], 2, ".json"),
    (["-o", "file/world.json"], 2, "is a file, not a folder"),
    (["--contact-sheet", "sheet.jpg"], 2, ".png"),
    (["--model", "nowhere"], 3, "there is no model"),
    (["--model", "other"], 2, "not trained on the tiny world"),
]


@pytest.mark.parametrize(("words", "code", "says"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_what_cannot_work_is_one_clear_error(
    words: list[str],
    code: int,
    says: str,
    tiny_data: TinyData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    if "other" in words:
        write_model(Path("other"), world="earth")
    before = sorted(tmp_path.rglob("*"))
    model = () if "--model" in words else ("--model", str(tiny_data.model))
    ran = run_ttv("eval", "world", *words, *model)
    assert ran.code == code, ran.stderr
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before
