"""A sampling run that is killed: the next one goes on from its last state, to the same bytes."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import run_ttv
from tiny_model import TinyData

from ttvcli.artifacts.safetensors_file import read_about
from ttvcli.workflows import generate
from ttvcli.workflows.sample import SampleConfig, run

PROMPT = "a red circle moves right"
SAMPLERS = ["ddim", "dpm++2m", "dpm++2m-sde"]
STEPS = 6


def config(data: TinyData, out: Path, **settings: Any) -> SampleConfig:
    usual = {"steps": STEPS, "checkpoint_every": 2, "device": "cpu", "model": str(data.model)}
    return SampleConfig(prompt=PROMPT, out=out, **{**usual, **settings})


class Calls:
    """Counts calls of the transformer, and stops the run at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self.stop_at = 0
        self._velocity = generate.velocity
        monkeypatch.setattr(generate, "velocity", self)

    def __call__(self, *args: Any) -> Any:
        self.made += 1
        if self.made == self.stop_at:
            raise KeyboardInterrupt
        return self._velocity(*args)

    def kill(self, settings: SampleConfig, call: int) -> None:
        self.made, self.stop_at = 0, call
        with pytest.raises(KeyboardInterrupt):
            run(settings)
        self.made, self.stop_at = 0, 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_killed_run_goes_on_to_the_same_bytes(
    sampler: str, tiny_data: TinyData, tmp_path: Path, calls: Calls
) -> None:
    whole = config(tiny_data, tmp_path / "whole.mp4", sampler=sampler)
    run(whole)
    assert calls.made == STEPS
    settings = config(tiny_data, tmp_path / "out.mp4", sampler=sampler)
    calls.kill(settings, 6)  # in its sixth step: the state after the fourth is there
    state = tmp_path / "out.sampling.safetensors"
    assert read_about(state, "sampling")["next_step"] == 4
    assert not settings.out.exists()
    run(settings)
    assert calls.made == STEPS - 4
    assert settings.out.read_bytes() == whole.out.read_bytes()
    assert not state.exists()


def test_a_run_may_be_killed_again_and_again(
    tiny_data: TinyData, tmp_path: Path, calls: Calls
) -> None:
    whole = config(tiny_data, tmp_path / "whole.mp4", sampler="dpm++2m-sde")
    run(whole)
    settings = config(tiny_data, tmp_path / "out.mp4", sampler="dpm++2m-sde", checkpoint_every=1)
    for _ in range(STEPS - 1):
        calls.kill(settings, 2)
    run(settings)
    assert calls.made == 1
    assert settings.out.read_bytes() == whole.out.read_bytes()


@pytest.mark.parametrize("damage", ["other settings", "cut short", "another kind"])
def test_a_state_that_does_not_belong_to_the_run_is_not_used(
    damage: str, tiny_data: TinyData, tmp_path: Path, calls: Calls
) -> None:
    whole = config(tiny_data, tmp_path / "whole.mp4")
    run(whole)
    settings = config(tiny_data, tmp_path / "out.mp4")
    state = tmp_path / "out.sampling.safetensors"
    calls.kill(config(tiny_data, tmp_path / "out.mp4", seed=7), 4)
    if damage == "cut short":
        calls.kill(settings, 4)
        state.write_bytes(state.read_bytes()[:-10])
    elif damage == "another kind":
        state.write_bytes(next(tiny_data.latents.glob("*.safetensors")).read_bytes())
    run(settings)
    assert calls.made == STEPS
    assert settings.out.read_bytes() == whole.out.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.stem.startswith("out")) == [
        "out.json",
        "out.mp4",
    ]


def test_nothing_is_written_when_it_is_turned_off(
    tiny_data: TinyData, tmp_path: Path, calls: Calls
) -> None:
    settings = config(tiny_data, tmp_path / "out.mp4", checkpoint_every=0)
    calls.kill(settings, STEPS)
    assert not list(tmp_path.iterdir())
    run(settings)
    assert calls.made == STEPS


def test_the_state_says_what_it_is(tiny_data: TinyData, tmp_path: Path, calls: Calls) -> None:
    calls.kill(config(tiny_data, tmp_path / "out.mp4"), 4)
    ran = run_ttv("info", tmp_path / "out.sampling.safetensors", "--json")
    assert (ran.json["kind"], ran.json["next_step"]) == ("sampling", 2)
    assert set(ran.json["tensors"]) == {"x", "old_denoised", "generator"}


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_to_the_same_bytes(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    words = [PROMPT, "--model", tiny_data.model, "--device", "cpu", "--threads", "1"]
    words += ["--steps", "60", "--sampler", "dpm++2m-sde"]
    out, state = tmp_path / "out.mp4", tmp_path / "out.sampling.safetensors"
    command = [sys.executable, "-m", "ttvcli", "sample", *map(str, words), "-o", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not state.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert state.exists(), "the run ended before it was killed"
    ran = run_ttv("sample", *words, "-o", out)
    assert ran.code == 0, ran.stderr
    assert run_ttv("sample", *words, "-o", tmp_path / "whole.mp4").code == 0
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
