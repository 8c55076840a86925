"""`ttv sample`: what comes out, that it can be made again to the byte, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Ran, run_ttv
from PIL import Image
from tiny_model import SIZE, TOKENS, TinyData

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.video import read_sidecar
from ttvcli.core.video.decode import probe, read_frames
from ttvcli.errors import UsageError, WorkFailed
from ttvcli.workflows import generate
from ttvcli.workflows import sample as step
from ttvcli.workflows.output_file import check_output_file
from ttvcli.workflows.sample import SampleConfig, run
from ttvcli.workflows.sample_request import bytes_to_hash, check
from ttvcli.workflows.step import Silent

PROMPT = "a red circle moves right"
BACKGROUND = "in front of a gray gradient from left to right"
STORY = ["a red circle moves right", "a blue star bounces", "a green ring grows"]


def sample(data: TinyData, *words: str | Path, stdin: str = "") -> Ran:
    """`ttv sample` with two steps on the CPU."""
    return run_ttv(
        "sample", *words, "--model", data.model, "--steps", "2", "--device", "cpu", stdin=stdin
    )


def frames(path: Path) -> np.ndarray:
    return np.stack([frame for _, frame in read_frames(path)])


@pytest.fixture(scope="module")
def made(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of the prompt with its contact sheet; read-only."""
    out = tmp_path_factory.mktemp("made") / "out.mp4"
    ran = sample(tiny_data, PROMPT, "-o", out, "--contact-sheet", out.with_suffix(".png"))
    assert ran.code == 0, ran.stderr
    assert ran.stdout == f"{out}\n{out.with_suffix('.png')}\n"
    return out


def test_a_prompt_gives_three_seconds_of_video_and_a_sheet(made: Path) -> None:
    about = probe(made)
    assert (about.width, about.height, float(about.fps)) == (SIZE, SIZE, 16.0)
    assert frames(made).shape == (49, SIZE, SIZE, 3)
    sheet = Image.open(made.with_suffix(".png"))
    assert min(sheet.size) >= 2 * 128  # two rows of enlarged frames
    assert not list(made.parent.glob("*.safetensors"))


def test_standard_input_is_the_prompt_too(tiny_data: TinyData, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "typed.mp4"
    ran = sample(tiny_data, "-", "-o", out, "--json", stdin=f"{PROMPT}\n")
    assert ran.json == {
        "video": str(out),
        "paths": [str(out)],
        "prompts": [PROMPT],
        "frames": 49,
    }
    assert out.read_bytes() == made.read_bytes()


def test_the_sidecar_makes_the_same_file_again(made: Path, tmp_path: Path) -> None:
    ran = run_ttv("sample", "--config", made.with_suffix(".json"), "-o", tmp_path / "again.mp4")
    assert ran.code == 0, ran.stderr
    assert (tmp_path / "again.mp4").read_bytes() == made.read_bytes()
    # In its own place there is nothing to do.
    ran = run_ttv("sample", "--config", made.with_suffix(".json"), "-o", made)
    assert (ran.code, "there already" in ran.stderr) == (0, True)


def test_a_flag_wins_over_the_sidecar(made: Path, tmp_path: Path) -> None:
    sidecar = made.with_suffix(".json")
    ran = run_ttv("sample", "a blue star bounces", "--config", sidecar, "-o", tmp_path / "o.mp4")
    assert ran.code == 0, ran.stderr
    settings = read_sidecar(tmp_path / "o.mp4")["settings"]
    assert settings["texts"] == ["a blue star bounces"]
    assert settings["steps"] == 2


def test_another_model_than_the_sidecars_is_refused(
    tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    from tiny_model import write_model

    other = write_model(tmp_path / "other", seed=1)
    ran = run_ttv(
        "sample", "--config", made.with_suffix(".json"), "--model", other, "-o", tmp_path / "o.mp4"
    )
    assert ran.code == 3
    assert "stale: the model is" in ran.stderr
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_storyboard_gives_three_seconds_a_segment(
    form: str, tiny_data: TinyData, tmp_path: Path
) -> None:
    board = tmp_path / f"story.{form}"
    if form == "text":
        board.write_text("\n".join(STORY))
    else:
        segments: list[dict[str, Any]] = [{"text": text} for text in STORY]
        segments[1] |= {"negative": "a gray background", "scene_start": True}
        board.write_text(json.dumps({"segments": segments, "seconds": 9}))
    out = tmp_path / "film.mp4"
    ran = sample(
        tiny_data, "--storyboard", board, "--seconds", "9", "-o", out, "--negative", "a red ring"
    )
    assert ran.code == 0, ran.stderr
    assert len(frames(out)) == 145
    settings = read_sidecar(out)["settings"]
    if form == "text":
        assert settings["texts"] == STORY
        assert settings["negatives"] == ["a red ring"] * 3
    else:
        assert settings["texts"] == [
            f"{STORY[0]} <end_scene>",
            f"<start_scene> {STORY[1]}",
            STORY[2],
        ]
        assert settings["negatives"] == ["a red ring", "a gray background", "a red ring"]
    board.unlink()  # the sidecar holds the storyboard
    again = tmp_path / "again.mp4"
    ran = run_ttv("sample", "--config", out.with_suffix(".json"), "-o", again)
    assert ran.code == 0, ran.stderr
    assert again.read_bytes() == out.read_bytes()


def test_a_prompt_fills_all_seconds(tiny_data: TinyData, tmp_path: Path) -> None:
    ran = sample(tiny_data, PROMPT, "--seconds", "6", "-o", tmp_path / "six.mp4", "--json")
    assert ran.json["frames"] == 97
    assert ran.json["prompts"] == [PROMPT] * 2


CHANGES = [
    ("--seed", "7"),
    ("--guidance", "1"),
    ("--guidance", "0"),
    ("--guidance-mode", "ramp"),
    ("--negative", "a blue star"),
    ("--sampler", "dpm++2m-sde"),
    ("--size", "32x16"),
    ("--set", "null_text=zero"),
    ("--set", f"text_tokens={TOKENS - 1}"),
    ("--set", "crf=40"),
]


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
def test_every_setting_reaches_the_video(
    change: tuple[str, str], tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "other.mp4"
    ran = sample(tiny_data, PROMPT, "-o", out, *change)
    assert ran.code == 0, ran.stderr
    if change != ("--size", "32x16"):
        assert out.read_bytes() != made.read_bytes()
    else:
        assert frames(out).shape == (49, 16, 32, 3)
    old, new = (read_sidecar(path)["settings_hash"] for path in (made, out))
    assert old != new


def test_no_text_is_what_the_model_was_trained_with(tiny_data: TinyData, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_data.model, tmp_path / "model")
    about = model_folder.read_about(model)
    nulls = []
    for null in ("empty", "zero"):
        model_folder.write_about(model, {**about, "null_text": null})
        settings = {"prompt": PROMPT, "model": str(model), "device": "cpu"}
        plain = check(SampleConfig(**settings))
        nulls.append(generate.text_branches([plain], torch.device("cpu"))[1])
    assert nulls[0].shape == (1, 1, TOKENS, 16)
    assert nulls[0].any()
    assert not nulls[1].any()
    # A negative text takes the place of either.
    other = check(SampleConfig(**settings, negative="a blue star"))
    text, negative = generate.text_branches([other], torch.device("cpu"))
    assert negative.any()
    assert not torch.equal(negative, text)


def test_no_guidance_differs_from_guidance_of_one(tiny_data: TinyData, tmp_path: Path) -> None:
    for scale in ("0", "1"):
        sample(tiny_data, PROMPT, "-o", tmp_path / f"{scale}.mp4", "--guidance", scale)
    assert (tmp_path / "0.mp4").read_bytes() != (tmp_path / "1.mp4").read_bytes()


def test_a_second_run_does_nothing_and_other_settings_need_force(
    tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    before = made.stat().st_mtime_ns
    assert sample(tiny_data, PROMPT, "-o", made).code == 0
    assert made.stat().st_mtime_ns == before
    for dry in ([], ["--dry-run"]):
        ran = sample(tiny_data, PROMPT, "-o", made, "--seed", "7", *dry)
        assert ran.code == 2
        old = read_sidecar(made)["settings_hash"]
        assert f"made with settings {old}, now" in ran.stderr
        assert "--force" in ran.stderr
    out = tmp_path / "out.mp4"
    sample(tiny_data, PROMPT, "-o", out, "--seed", "7")
    assert sample(tiny_data, PROMPT, "-o", out, "--force").code == 0
    assert out.read_bytes() == made.read_bytes()


def test_a_failed_decode_keeps_the_latents_and_the_next_run_uses_them(
    tiny_data: TinyData, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SampleConfig(
        prompt=PROMPT, out=tmp_path / "out.mp4", model=str(tiny_data.model), steps=2, device="cpu"
    )
    with monkeypatch.context() as patched:

        def broken(*_: Any, **__: Any) -> bytes:
            raise WorkFailed("the disk is full")

        patched.setattr(generate, "write_video", broken)
        with pytest.raises(WorkFailed, match="full"):
            run(config)
    assert [p.name for p in tmp_path.iterdir()] == ["out.latents.safetensors"]
    with monkeypatch.context() as patched:
        patched.setattr(generate, "generate_latents", broken)  # is not needed any more
        run(config)
    assert config.out.read_bytes() == made.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.mp4"]


def test_latents_of_other_settings_are_not_used(
    tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    words = ("-o", tmp_path / "out.mp4", "--set", "keep_latents=true")
    assert sample(tiny_data, PROMPT, *words, "--seed", "7").code == 0
    assert (tmp_path / "out.latents.safetensors").exists()
    ran = sample(tiny_data, PROMPT, *words, "--force")
    assert ran.code == 0, ran.stderr
    assert (tmp_path / "out.mp4").read_bytes() == made.read_bytes()


def test_a_video_whose_writer_died_before_the_sidecar_is_finished(
    tiny_data: TinyData, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    sample(tiny_data, PROMPT, "-o", out, "--set", "keep_latents=true")
    out.with_suffix(".json").unlink()
    ran = sample(tiny_data, PROMPT, "-o", out)
    assert ran.code == 0, ran.stderr
    assert read_sidecar(out)["settings"]["seed"] == 42


def test_a_prompt_outside_the_world_is_warned_about_and_drawn(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    text = "a corgi in a hat walks through the rain " * 3  # over the token budget as well
    ran = sample(tiny_data, text, "-o", tmp_path / "dog.mp4")
    assert ran.code == 0
    assert ran.stderr.count("warning:") == 2
    assert "unknown words: corgi, hat" in ran.stderr
    assert "--model path/to/CogVideoX" in ran.stderr
    assert f"the limit is {TOKENS}: the rest is cut off" in ran.stderr
    assert len(frames(tmp_path / "dog.mp4")) == 49


def test_a_dry_run_shows_the_plan_and_writes_nothing(tiny_data: TinyData, tmp_path: Path) -> None:
    ran = sample(tiny_data, PROMPT, "-o", tmp_path / "new" / "o.mp4", "--dry-run", "--json")
    plan = ran.json["plan"]
    assert plan["items"]["segment 1"] == PROMPT
    assert plan["items"]["latents"] == "[13, 4, 2, 2]"
    assert plan["items"]["sampler"] == "ddim, 2 steps"
    assert not (tmp_path / "new").exists()


def test_settings_shown_can_be_used_again(tiny_data: TinyData, made: Path, tmp_path: Path) -> None:
    shown = sample(tiny_data, PROMPT, "-o", tmp_path / "o.mp4", "--show-config").stdout
    (tmp_path / "o.toml").write_text(shown)
    assert run_ttv("sample", "--config", tmp_path / "o.toml").code == 0
    assert (tmp_path / "o.mp4").read_bytes() == made.read_bytes()


BAD: list[tuple[list[str], int, str]] = [
    ([], 2, "nothing to draw"),
    ([""], 2, "the prompt is empty"),
    (["   "], 2, "the prompt is empty"),
    (["-"], 2, "the prompt is empty"),  # nothing on standard input
    ([PROMPT, "--storyboard", "story.txt"], 2, "not both"),
    (["--storyboard", "none.json"], 3, "no such storyboard"),
    (["--storyboard", "broken.json"], 3, "not valid JSON"),
    (["--storyboard", "story.txt", "--seconds", "6"], 3, "3 segments of 3 s: 9 s in all"),
    (["--storyboard", "long.txt"], 3, "segment 2: its text has"),
    (["--storyboard", "video.json", "-o", "video.mp4"], 2, "is another file"),
    ([PROMPT, "--seconds", "4"], 2, "--seconds must be a multiple of 3, got 4"),
    ([PROMPT, "--seconds", "inf"], 2, "--seconds must be a multiple"),
    ([PROMPT, "--seconds", "1e9"], 2, "--seconds must be"),
    ([PROMPT, "--size", "20x16"], 2, "multiples of 16"),
    ([PROMPT, "--size", "big"], 2, "WIDTHxHEIGHT"),
    ([PROMPT, "--sampler", "dim"], 2, "did you mean ddim"),
    ([PROMPT, "--guidance-mode", "ramps"], 2, "did you mean ramp"),
    ([PROMPT, "--guidance", "-1"], 2, "--guidance must be"),
    ([PROMPT, "--guidance", "nan"], 2, "--guidance must be"),
    ([PROMPT, "--steps", "-3"], 2, "--steps"),
    ([PROMPT, "--steps", "2000"], 2, "--steps must be 1 to 1000"),
    ([PROMPT, "--seed", "-1"], 2, "--seed must be"),
    ([PROMPT, "--seed", "many"], 2, "seed expects"),
    ([PROMPT, "--set", "crf=52"], 2, "crf must be 0 to 51"),
    ([PROMPT, "--set", "crff=5"], 2, "did you mean crf"),
    ([PROMPT, "--dtype", "fp8"], 2, "dtype expects one of"),
    ([PROMPT, "--device", "gpu"], 2, "unknown device"),
    ([PROMPT, "--model", "tinny"], 3, "there is no model"),
    ([PROMPT, "--model", "."], 3, "not a model folder"),
    ([PROMPT, "-o", "o.avi"], 2, ".mp4"),
    ([PROMPT, "-o", "."], 2, ".mp4"),
    ([PROMPT, "-o", "folder.mp4"], 2, "is a folder"),
    ([PROMPT, "-o", "story.txt/o.mp4"], 2, "is a file, not a folder"),
    ([PROMPT, "--contact-sheet", "o.jpg"], 2, ".png"),
    ([PROMPT, "--config", "broken.json"], 3, "sidecar cannot be read"),
    ([PROMPT, "--config", "video.json"], 3, "expected generated video"),
]


@pytest.mark.parametrize(("words", "code", "says"), BAD, ids=[" ".join(b[0]) or "-" for b in BAD])
def test_what_cannot_work_is_one_clear_error(
    words: list[str],
    code: int,
    says: str,
    tiny_data: TinyData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text("\n".join(STORY))
    Path("long.txt").write_text(f"{PROMPT}\n{PROMPT} and a blue ring circles around " + BACKGROUND)
    Path("broken.json").write_text("{")
    Path("video.json").write_text(json.dumps({"segments": [{"text": PROMPT}]}))
    Path("folder.mp4").mkdir()
    before = sorted(tmp_path.rglob("*"))
    model = [] if "--model" in words else ["--model", str(tiny_data.model)]
    ran = run_ttv("sample", *words, *model)
    assert ran.code == code, ran.stderr
    assert ran.stdout == ""
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("component", "change", "says"),
    [
        ("transformer", {"num_heads": 3}, "unknown key 'num_heads'"),
        ("transformer", {"in_channels": 12}, "reads 12 channels, the VAE makes 4"),
        ("transformer", {"num_layers": 3}, "weights do not fit the model"),
        ("scheduler", {"beta_schedule": "sine"}, "sine"),
    ],
)
def test_a_broken_model_is_an_error_not_a_bug(
    component: str, change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    from tiny_model import write_model

    from ttvcli.artifacts.model_folder import config_path

    path = config_path(write_model(tmp_path / "model"), component)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    ran = run_ttv(
        "sample", PROMPT, "--model", tmp_path / "model", "-o", tmp_path / "o.mp4", "--steps", "1"
    )
    assert ran.code == 3, ran.stderr
    assert says in ran.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="--out cannot be written"):
        check_output_file(Path("/proc/out.mp4"), ".mp4", "--out")


def test_hashing_a_large_model_is_told_when_it_is_done(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(tiny_data.model, tmp_path / "model")
    monkeypatch.setattr(step, "_LONG_TO_HASH", 1)
    told: list[str] = []

    class Told(Silent):
        def start(self, description: str, *_: Any, **__: Any) -> None:
            told.append(description)

    request = check(SampleConfig(prompt=PROMPT, model=str(model)))
    size = bytes_to_hash(model)
    for _ in range(2):
        step._hash_model(request, Told())
    assert told == [f"hashing {size / 2**30:.1f} GiB of weights"]
    assert (size > 0, bytes_to_hash(model)) == (True, 0)
