"""`ttv train`: any way to the last step gives the same bytes, and nothing wrong is trained on."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Ran, run_ttv
from tiny_model import TinyData, write_model

from ttvcli.artifacts import checkpoint, model_folder, runs
from ttvcli.artifacts.embeddings import load_embeddings
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.tensor_file import Weights
from ttvcli.core.models.vae.whitening import second_moment
from ttvcli.core.training.loop import Trainer, step_generator
from ttvcli.core.training.optim import OptimizerConfig, learning_rate
from ttvcli.errors import Interrupted, UsageError
from ttvcli.workflows import components
from ttvcli.workflows.step import Silent
from ttvcli.workflows.train import TrainConfig, TrainResult, run
from ttvcli.workflows.training_data import PixelClips
from ttvcli.workflows.training_tasks import build_task

FAST = OptimizerConfig(lr=1e-3, ttt_lr=2e-3, lr_end=1e-4, warmup_steps=4)


def config(data: TinyData, out: Path, target: str = "transformer", **changes: Any) -> TrainConfig:
    """20 steps of two clips (of one short clip for the VAE)."""
    values: dict[str, Any] = {
        "data": data.latents if target == "transformer" else data.clips,
        "text": data.text if target == "transformer" else None,
        "out": out,
        "model": str(data.model),
        "target": target,
        "steps": 20,
        "batch_size": 2 if target == "transformer" else 1,
        "clip_frames": 9,
        "optimizer": FAST,
        "ema_decay": 0.9,
        "checkpoint_every": 5,
        "device": "cpu",
    }
    return TrainConfig(**{**values, **changes})


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return Weights([path]).load()


def outcome(folder: Path, step: int = 20) -> dict[str, bytes]:
    """Every byte that a run should have left whatever happened to it on the way."""
    last = folder / "checkpoints" / f"step-{step:06d}"
    files = [*last.glob("*.safetensors"), *last.glob("optimizer/*"), folder / "metrics.jsonl"]
    files += [p for p in (folder / "model").rglob("*") if p.is_file()]
    assert len(files) > 12
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# The VAE is trained the same way; what it adds to the wait is seconds, so it is among the slow.
TARGETS = ["transformer", pytest.param("vae", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=TARGETS)
def whole(
    request: pytest.FixtureRequest, tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, bytes]]:
    """The target, and what 20 uninterrupted steps leave."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(config(tiny_data, folder, request.param))
    return request.param, outcome(folder)


def test_ten_steps_and_ten_more_equal_twenty(
    whole: tuple[str, dict[str, bytes]], tiny_data: TinyData, tmp_path: Path
) -> None:
    target, expected = whole
    folder = tmp_path / "run"
    first = run(config(tiny_data, folder, target, stop_after=10))
    assert first.step == 10
    assert len(runs.read_metrics(folder)) == 10
    second = run(config(tiny_data, folder, target))
    assert second.step == 20
    assert [line["step"] for line in runs.read_metrics(folder)] == list(range(1, 21))
    assert outcome(folder) == expected


class StopAt(Silent):
    """Sends a signal to the own process while a step is being trained."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, n: int = 1, **fields: Any) -> None:
        self.left -= n
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_finishes_the_step_saves_and_the_run_goes_on(
    whole: tuple[str, dict[str, bytes]], tiny_data: TinyData, tmp_path: Path
) -> None:
    target, expected = whole
    settings = config(tiny_data, tmp_path / "run", target)
    with pytest.raises(Interrupted, match="after step 7 of 20; everything is saved"):
        run(settings, StopAt(7))
    latest = checkpoint.latest_checkpoint(tmp_path / "run")
    assert latest is not None
    assert latest.name == "step-000007"
    run(settings)
    assert outcome(tmp_path / "run") == expected


def test_on_the_command_line_a_signal_ends_with_130(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trainer.train_step

    def with_signal(self: Trainer, step: int, batches: Any) -> dict[str, float]:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return trained(self, step, batches)

    monkeypatch.setattr(Trainer, "train_step", with_signal)
    ran = ttv_train(tiny_data, "--out", tmp_path / "run", "--steps", "5")
    assert ran.code == 130
    assert "stopped after step 3 of 5" in ran.stderr
    assert "run the same command again" in ran.stderr
    assert ran.stdout == ""


def ttv_train(data: TinyData, *words: str | Path) -> Ran:
    given = [str(word) for word in words]
    usual: dict[str, Any] = {
        "--data": data.latents,
        "--text": data.text,
        "--model": data.model,
        "--batch-size": 2,
        "--device": "cpu",
    }
    missing = [str(w) for flag, value in usual.items() if flag not in given for w in (flag, value)]
    return run_ttv("train", *given, *missing)


def test_kill_9_at_any_moment_and_again_equals_an_uninterrupted_run(
    whole: tuple[str, dict[str, bytes]], tiny_data: TinyData, tmp_path: Path
) -> None:
    target, expected = whole
    folder = tmp_path / "run"
    settings = config(tiny_data, folder, target)
    child = (
        "import pickle, sys; from ttvcli.workflows.train import run;"
        "run(pickle.load(sys.stdin.buffer))"
    )
    process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(settings))
    process.stdin.close()
    deadline = time.monotonic() + 240
    while len(runs.read_metrics(folder)) < 8 and time.monotonic() < deadline:
        assert process.poll() in (None, 0)
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert checkpoint.latest_checkpoint(folder) is not None
    run(settings)
    assert outcome(folder) == expected
    steps = [json.loads(line)["step"] for line in (folder / "timing.jsonl").open()]
    assert steps == list(range(1, 21))


def test_a_checkpoint_that_was_being_written_is_ignored_and_removed(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    settings = config(tiny_data, folder, steps=8, checkpoint_every=4)
    run(config(tiny_data, folder, steps=8, checkpoint_every=4, stop_after=4))
    expected_folder = tmp_path / "whole"
    run(config(tiny_data, expected_folder, steps=8, checkpoint_every=4))
    good = folder / "checkpoints" / "step-000004"
    half = shutil.copytree(good, good.with_name("step-000006.tmp-0123abcd"))
    torn = shutil.copytree(good, good.with_name("step-000007"))
    (torn / "COMPLETE").unlink()
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    run(settings)
    assert outcome(folder, 8) == outcome(expected_folder, 8)
    assert not half.exists()


def test_a_damaged_checkpoint_is_refused(tiny_data: TinyData, tmp_path: Path) -> None:
    run(config(tiny_data, tmp_path / "run", steps=2, stop_after=1))
    weights = tmp_path / "run" / "checkpoints" / "step-000001" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    again = run_ttv("train", "--config", tmp_path / "run" / "config.toml", "--set", "stop_after=0")
    assert again.code == 3
    assert "model.safetensors has changed" in again.stderr


def test_only_the_last_checkpoints_are_kept(tiny_data: TinyData, tmp_path: Path) -> None:
    run(config(tiny_data, tmp_path / "run", steps=7, checkpoint_every=2, keep_last=3))
    names = [p.name for p in checkpoint.complete_checkpoints(tmp_path / "run")]
    assert names == ["step-000004", "step-000006", "step-000007"]


def test_a_finished_run_is_left_alone(tiny_data: TinyData, tmp_path: Path) -> None:
    settings = config(tiny_data, tmp_path / "run", steps=3)
    done = run(settings)
    before = {p: p.stat().st_mtime_ns for p in (done.model / "transformer").iterdir()}
    again = run(settings)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (again.step, again.metrics) == (3, done.metrics)
    for words in ([], ["--dry-run"]):
        ran = run_ttv("train", "--config", done.run / "config.toml", "--seed", "1", *words)
        assert ran.code == 2
        assert "made with other settings (seed): " in ran.stderr
    # The settings of place and pace may change, those of the result may not.
    run(config(tiny_data, tmp_path / "run", steps=3, keep_last=1, threads=1))
    with pytest.raises(UsageError, match="made with other settings"):
        run(config(tiny_data, tmp_path / "run", steps=3, seed=1))
    forced = run(config(tiny_data, tmp_path / "run", steps=3, seed=1, force=True))
    assert forced.metrics != done.metrics
    assert [line["step"] for line in runs.read_metrics(tmp_path / "run")] == [1, 2, 3]


def test_resume_from_a_named_checkpoint(tiny_data: TinyData, tmp_path: Path) -> None:
    settings = {"steps": 6, "checkpoint_every": 2, "keep_last": 5}
    run(config(tiny_data, tmp_path / "run", **settings))
    old = tmp_path / "run" / "checkpoints" / "step-000002"
    # Elsewhere it starts a run that ends the same.
    run(config(tiny_data, tmp_path / "other", **settings, resume=str(old)))
    assert outcome(tmp_path / "other", 6).keys() == outcome(tmp_path / "run", 6).keys()
    for name in ("model.safetensors", "ema.safetensors"):
        a, b = (tmp_path / r / "checkpoints" / "step-000006" / name for r in ("run", "other"))
        assert a.read_bytes() == b.read_bytes()
    # In its own run it would throw later steps away.
    with pytest.raises(UsageError, match="gone on to step 6, the checkpoint is of step 2"):
        run(config(tiny_data, tmp_path / "run", **settings, resume=str(old)))
    with pytest.raises(UsageError, match="other settings: seed"):
        run(config(tiny_data, tmp_path / "third", **settings, resume=str(old), seed=1))
    with pytest.raises(UsageError, match="--force would delete"):
        run(config(tiny_data, tmp_path / "run", **settings, resume=str(old), force=True))
    assert old.exists()
    with pytest.raises(UsageError, match="--resume is never"):
        run(config(tiny_data, tmp_path / "run", **settings, resume="never"))


def test_two_processes_do_not_share_a_run(tiny_data: TinyData, tmp_path: Path) -> None:
    with only_writer(tmp_path / "run"), pytest.raises(UsageError, match="another process"):
        run(config(tiny_data, tmp_path / "run", steps=1))


def test_a_run_without_a_folder_goes_on_after_midnight(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    today = iter(["2031-05-01", "2031-05-02", "2031-05-03"])

    class Day:
        @staticmethod
        def today() -> Any:
            class Date:
                isoformat = staticmethod(lambda: day)

            return Date

    monkeypatch.setattr(runs.datetime, "date", Day)
    day = next(today)
    first = run(config(tiny_data, None, steps=3, stop_after=1))  # type: ignore[arg-type]
    assert first.run == Path("runs/2031-05-01-train")
    day = next(today)
    second = run(config(tiny_data, None, steps=3))  # type: ignore[arg-type]
    assert second.run == first.run
    assert len(runs.read_metrics(first.run)) == 3
    day = next(today)
    third = run(config(tiny_data, None, steps=2))  # type: ignore[arg-type]
    assert third.run == Path("runs/2031-05-03-train")
    assert Path("runs/latest").resolve() == third.run.resolve()


@pytest.fixture(scope="module")
def every_step(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that keeps the checkpoint of each of its 12 steps."""
    folder = tmp_path_factory.mktemp("every") / "run"
    return run(config(tiny_data, folder, steps=12, checkpoint_every=1, keep_last=20))


def test_the_average_is_that_of_a_recurrence_in_double_precision(
    every_step: TrainResult, tiny_data: TinyData
) -> None:
    start = tensors(tiny_data.model / "transformer" / "diffusion_pytorch_model.safetensors")
    average = {name: value.double() for name, value in start.items()}
    for step in range(12):
        folder = every_step.run / "checkpoints" / f"step-{step + 1:06d}"
        now = tensors(folder / "model.safetensors")
        decay = min(0.9, (1 + step) / (10 + step))
        average = {n: decay * v + (1 - decay) * now[n].double() for n, v in average.items()}
        kept = tensors(folder / "ema.safetensors")
        for name, value in kept.items():
            assert torch.allclose(value.double(), average[name], rtol=1e-5, atol=1e-7), name
    moved = max(float((now[n].double() - average[n]).abs().max()) for n in average)
    assert moved > 1e-4  # it is not simply the weights
    # The model folder has the average.
    exported = tensors(every_step.model / "transformer" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(exported[name], kept[name]) for name in kept)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(every_step: TrainResult) -> None:
    rates = [line["lr"] for line in runs.read_metrics(every_step.run)]
    assert rates == [learning_rate(FAST.lr, step, 12, FAST) for step in range(12)]
    assert rates[:5] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
    assert rates[-1] == pytest.approx(1e-4)


def test_the_rate_of_ttt_layers_reaches_them_and_nothing_else(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    still = OptimizerConfig(lr=1e-30, lr_end=1e-30, ttt_lr=1e-2, warmup_steps=0)
    made = run(config(tiny_data, tmp_path / "run", steps=1, optimizer=still, ema_decay=0.0))
    name = "transformer/diffusion_pytorch_model.safetensors"
    before, after = tensors(tiny_data.model / name), tensors(made.model / name)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    # Nothing reads the text that comes out of the last block, so its last gate stays.
    ttt = {key for key in before if ".ttt." in key or "_gate_" in key}
    assert moved == ttt - {"transformer_blocks.1.backward_gate_text"}
    assert len(moved) > 2 * 8


def test_frozen_weights_stay_and_latents_keep_their_scale(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    made = run(config(tiny_data, tmp_path / "run", "vae", steps=2, freeze="encoder."))
    name = "vae/diffusion_pytorch_model.safetensors"
    before, after = tensors(tiny_data.model / name), tensors(made.model / name)
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"decoder"}
    folders = (tiny_data.model, made.model)
    scales = {model_folder.read_config(folder, "vae")["scaling_factor"] for folder in folders}
    assert len(scales) == 1


def test_whitened_latents_have_like_variances_of_mean_one(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    changes = {"steps": 1, "ema_decay": 0.0, "whiten_latents": True, "clip_frames": 17}
    made = run(config(tiny_data, tmp_path / "run", "vae", **changes))
    assert model_folder.read_config(made.model, "vae")["scaling_factor"] == 1.0
    vae: Any = components.load(made.model, "vae")
    source = PixelClips(tiny_data.clips, 17, 2**20)
    pixels = source.batch(list(range(len(source))), torch.Generator().manual_seed(0))
    with torch.no_grad():
        moment = second_moment(vae.encode(pixels)[0])
    before: Any = components.load(tiny_data.model, "vae")
    with torch.no_grad():
        uneven = torch.linalg.eigvalsh(second_moment(before.encode(pixels)[0]))
    even = torch.linalg.eigvalsh(moment)
    assert even.mean().item() == pytest.approx(1, abs=0.3)
    assert even[-1] / even[0] < uneven[-1] / uneven[0]


@pytest.mark.parametrize(
    ("freeze", "says"), [("encodr.", "no weight starts with"), ("encoder., decoder.", "nothing to")]
)
def test_freezing_nothing_or_everything_is_refused(
    freeze: str, says: str, tiny_data: TinyData, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        run(config(tiny_data, tmp_path / "run", "vae", freeze=freeze))


def test_the_norm_of_the_gradient_is_limited(tiny_data: TinyData, tmp_path: Path) -> None:
    def second_moment(clip: float) -> float:
        settings = OptimizerConfig(lr=1e-3, warmup_steps=0, clip_norm=clip)
        folder = tmp_path / f"clip-{clip}"
        run(config(tiny_data, folder, steps=1, optimizer=settings))
        state = folder / "checkpoints" / "step-000001" / "optimizer" / "state.safetensors"
        squares = [v for k, v in tensors(state).items() if k.endswith("exp_avg_sq")]
        # After one step exp_avg_sq = (1 - beta2) g^2.
        return (sum(float(v.double().sum()) for v in squares) / 0.05) ** 0.5

    free, clipped = second_moment(0.0), second_moment(1e-2)
    assert clipped == pytest.approx(1e-2, rel=1e-3)
    assert free == pytest.approx(runs.read_metrics(tmp_path / "clip-0.0")[0]["grad_norm"], rel=1e-3)
    assert free > 2e-2


def test_captions_are_dropped_at_their_rate_for_the_text_used_when_sampling(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    settings = config(tiny_data, tmp_path / "run", steps=30, caption_dropout=0.25, batch_size=4)
    task = build_task(settings, torch.device("cpu"), Silent())
    seen: list[torch.Tensor] = []
    task.trainer.model.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    empty, _, _ = load_embeddings(tiny_data.text / "empty.safetensors")
    told = 0.0
    for step in range(30):
        batch = task.source.batch([0, 1, 2, 3], task.data_generator(step))
        told += 4 * task.trainer.train_step(step, [batch])["captions_dropped"]
        assert not (batch.text == empty[0].float()).flatten(1).all(1).any()
    texts = torch.cat(seen)
    is_null = (texts == empty[0].float()).flatten(1).all(1)
    assert 18 <= int(is_null.sum()) <= 42  # of 120, expected 30
    assert int(is_null.sum()) == round(told)


def test_posterior_draws_and_crops_are_those_of_the_step(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    tasks = [
        build_task(config(tiny_data, tmp_path / "run", seed=seed), torch.device("cpu"), Silent())
        for seed in (42, 43)
    ]
    draws = [
        [float(torch.rand(1, generator=task.data_generator(step))) for step in (0, 1, 1)]
        for task in tasks
    ]
    assert draws[0][1] == draws[0][2]
    assert len({*draws[0], *draws[1]}) == 4
    # The objective draws from a stream of its own.
    assert draws[0][0] != float(torch.rand(1, generator=step_generator(42, 0)))


def test_a_model_trained_with_zeros_for_no_text_keeps_doing_so(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_data.model, tmp_path / "model")
    about = model_folder.read_about(model)
    model_folder.write_about(model, {**about, "null_text": "zero"})
    settings = config(tiny_data, tmp_path / "run", model=str(model), steps=1)
    task = build_task(settings, torch.device("cpu"), Silent())
    null = task.trainer.objective.null_text  # type: ignore[attr-defined]
    assert null.shape == (19, 16)
    assert not null.any()
    task.export(tmp_path / "out")
    assert model_folder.read_about(tmp_path / "out")["null_text"] == "zero"


def test_new_ttt_layers_join_a_model_without_them(tiny_data: TinyData, tmp_path: Path) -> None:
    plain = shutil.copytree(tiny_data.model, tmp_path / "plain")
    other = write_model(tmp_path / "other", ssm="none")
    shutil.rmtree(plain / "transformer")
    shutil.copytree(other / "transformer", plain / "transformer")
    still = OptimizerConfig(lr=1e-30, ttt_lr=1e-30, lr_end=1e-30, warmup_steps=0)
    made = run(
        config(
            tiny_data, tmp_path / "run", model=str(plain), ssm="ttt_mlp", steps=1, optimizer=still
        )
    )
    assert model_folder.read_config(made.model, "transformer")["ssm"] == "ttt_mlp"
    name = "transformer/diffusion_pytorch_model.safetensors"
    before, after = tensors(plain / name), tensors(made.model / name)
    assert all(torch.equal(after[key], before[key]) for key in before)
    gates = [after[key] for key in after if "_gate_" in key]
    assert len(gates) == 8
    assert all(torch.equal(gate, torch.full_like(gate, 0.1)) for gate in gates)
    # TTT layers of another kind, or half of them, are no start.
    for changes, says in (
        ({"ssm": "ttt_mlp"}, "missing"),
        ({"ssm": "none"}, "unknown"),
    ):
        ran = ttv_train(
            tiny_data, "--out", tmp_path / "bad", "--steps", "1", "--set", f"ssm={changes['ssm']}"
        )
        assert ran.code == 3, ran.stderr
        assert "the weights do not fit the model" in ran.stderr
        assert says in ran.stderr


def test_other_vae_or_text_encoder_than_the_data_was_made_with_is_refused(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other", seed=1)
    for component, name in (("vae", "vae"), ("text_encoder", "text encoder")):
        model = shutil.copytree(tiny_data.model, tmp_path / component)
        shutil.rmtree(model / component)
        shutil.copytree(other / component, model / component)
        for words in ([], ["--dry-run"]):
            ran = ttv_train(
                tiny_data, "--model", model, "--out", tmp_path / "run", "--steps", "1", *words
            )
            assert ran.code == 3, ran.stderr
            assert f"stale: made with {name}" in ran.stderr
            assert not (tmp_path / "run").exists()


def test_the_folder_of_another_step_is_refused(tiny_data: TinyData, tmp_path: Path) -> None:
    where = ["--text", tiny_data.text, "--out", tmp_path / "run", "--steps", "1"]
    ran = run_ttv("train", "--model", tiny_data.model, "--data", tiny_data.text, *where)
    assert ran.code == 3, ran.stderr
    assert "the folder holds embeddings, not latents" in ran.stderr


def test_a_loss_that_is_not_finite_ends_with_1_and_keeps_the_checkpoint(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trainer.train_step

    def broken(self: Trainer, step: int, batches: Any) -> dict[str, float]:
        if step == 3:
            batches[0].latents.fill_(float("nan"))
        return trained(self, step, batches)

    monkeypatch.setattr(Trainer, "train_step", broken)
    words = ("--out", tmp_path / "run", "--steps", "5", "--set", "checkpoint_every=2")
    ran = ttv_train(tiny_data, *words)
    assert ran.code == 1
    assert "at step 3 are not finite" in ran.stderr
    assert [line["step"] for line in runs.read_metrics(tmp_path / "run")] == [1, 2, 3]
    monkeypatch.undo()
    assert ttv_train(tiny_data, *words).code == 0
    assert [line["step"] for line in runs.read_metrics(tmp_path / "run")] == [1, 2, 3, 4, 5]


@pytest.mark.slow  # its tokenizer sees 5,000 captions
def test_a_text_encoder_and_its_tokenizer_are_trained_from_nothing(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    words = (
        *("--target", "text_encoder", "--model", tiny_data.model, "--out", tmp_path / "run"),
        *("--steps", "3", "--batch-size", "4", "--set", "init=scratch", "--device", "cpu"),
    )
    first = run_ttv("train", *words, "--stop-after", "2")
    assert first.code == 0, first.stderr
    ran = run_ttv("train", *words, "--json")
    assert ran.json["step"] == 3
    assert set(ran.json["metrics"]) == {"loss", "accuracy", "grad_norm", "lr"}
    model = tmp_path / "run" / "model"
    assert model_folder.read_config(model, "text_encoder")["d_model"] == 128
    assert (model / "tokenizer" / "spiece.model").is_file()
    names = Weights([model / "text_encoder" / "model.safetensors"])
    assert not [name for name in names if name.startswith(("heads.", "encoder.encoder"))]


def test_the_new_vae_scales_its_latents_to_unit_variance(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    made = run(config(tiny_data, tmp_path / "run", "vae", steps=1))
    task = build_task(config(tiny_data, tmp_path / "x", "vae"), torch.device("cpu"), Silent())
    from ttvcli.workflows import components

    network = components.load(made.model, "vae")
    factor = model_folder.read_config(made.model, "vae")["scaling_factor"]
    pixels = task.source.batch(list(range(6)), torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, _ = network.encode(pixels)  # type: ignore[operator]
    assert float(mean.std()) * factor == pytest.approx(1.0, rel=0.1)


BAD: list[tuple[list[str], int, str]] = [
    (["--data", "none"], 3, "none"),
    (["--data", "empty"], 3, "empty"),
    (["--text", "empty"], 3, "empty"),
    (["--target", "transfomer"], 2, "did you mean transformer"),
    (["--stage", "4s"], 2, "there is no stage preset '4s'"),
    (["--gpu", "5090"], 2, "there is no gpu preset"),
    (["--steps", "0"], 2, "--steps"),
    (["--set", "steps=-1"], 2, "steps must be at least 1"),
    (["--set", "keep_last=0"], 2, "keep_last must be at least 1"),
    (["--set", "caption_dropout=1"], 2, "caption_dropout must be in [0, 1)"),
    (["--set", "ema_decay=1.5"], 2, "ema_decay must be in [0, 1)"),
    (["--set", "optimizer.lr=0"], 2, "learning rates must be positive"),
    (["--set", "optimizer.lrr=1"], 2, "did you mean optimizer.lr"),
    (["--set", "optimizer=1"], 2, "group of settings"),
    (["--set", "frames=50"], 2, "frames must be 4k+1"),
    (["--set", "frames=145"], 3, "has 13 latent frames, the run needs 37"),
    (["--set", "clip_frames=12"], 2, "clip_frames must be 8k+1"),
    (["--set", "seed=-1"], 2, "--seed must be"),
    (["--set", "init=scratch", "--set", "architecture=tinny"], 2, "did you mean 'tiny'"),
    (["--resume", "step-000001"], 3, "no such checkpoint"),
    (["--out", "file"], 2, "is a file"),
    (["--model", "start/model", "--out", "start"], 2, "overwrite the model it starts from"),
    (["--model", "nowhere"], 3, "there is no model"),
    (["--device", "gpu"], 2, "unknown device"),
    (["--target", "vae", "--data", "empty"], 3, "empty"),
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
    Path("empty").mkdir()
    Path("file").write_text("")
    if "start" in words:
        shutil.copytree(tiny_data.model, "start/model")
    ran = ttv_train(tiny_data, *words, *(() if "--out" in words else ("--out", "run")))
    assert ran.code == code, ran.stderr
    assert [line[:6] for line in ran.stderr.splitlines()].count("error:") == 1
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not Path("run/model").exists()
