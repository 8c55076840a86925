"""`ssm = "ttt_large_chunk"` from training to a video, by the commands that other models use."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import run_ttv
from tiny_model import TinyData, write_model

from ttvcli.artifacts import model_folder
from ttvcli.core.training.optim import OptimizerConfig
from ttvcli.core.video.decode import read_frames
from ttvcli.workflows import components
from ttvcli.workflows.step import Silent
from ttvcli.workflows.train import TrainConfig, run
from ttvcli.workflows.training_tasks import build_task

FAST = OptimizerConfig(lr=1e-3, ttt_lr=2e-3, lr_end=1e-4, warmup_steps=0)
KINDS = ("ttt_linear", "ttt_mlp", "ttt_large_chunk")


@pytest.fixture(scope="module")
def trained(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain model that got layers of large chunks and two steps of training."""
    root = tmp_path_factory.mktemp("chunks")
    plain = shutil.copytree(tiny_data.model, root / "plain")
    other = write_model(root / "other", ssm="none")
    shutil.rmtree(plain / "transformer")
    shutil.copytree(other / "transformer", plain / "transformer")
    made = run(
        TrainConfig(
            data=tiny_data.latents,
            text=tiny_data.text,
            out=root / "run",
            model=str(plain),
            ssm="ttt_large_chunk",
            ttt_chunk_tokens=20,
            steps=2,
            batch_size=2,
            optimizer=FAST,
            device="cpu",
        )
    )
    assert made.step == 2
    return made.model


def test_training_moves_the_new_layers_and_notes_their_settings(trained: Path) -> None:
    config = model_folder.read_config(trained, "transformer")
    assert (config["ssm"], config["ttt_chunk_tokens"]) == ("ttt_large_chunk", 20)
    network = components.load(trained, "transformer")
    assert network.transformer_blocks[0].ttt.wo.weight.abs().max() > 0  # it starts at 0


def test_a_video_is_sampled_from_memory_and_from_disk(trained: Path, tmp_path: Path) -> None:
    words = ("--model", trained, "--steps", "2", "--device", "cpu", "--seconds", "9")
    for name, more in (("memory", ()), ("disk", ("--offload", "disk"))):
        out = tmp_path / f"{name}.mp4"
        ran = run_ttv("sample", "a red circle moves right", "-o", out, *words, *more)
        assert ran.code == 0, ran.stderr
        assert sum(1 for _ in read_frames(out)) == 145
    assert (tmp_path / "memory.mp4").read_bytes() == (tmp_path / "disk.mp4").read_bytes()


def test_info_names_the_layers(trained: Path) -> None:
    told = run_ttv("info", trained, "--json").json
    assert told["transformer"]["ssm"] == "ttt_large_chunk"
    assert told["family"] == "tiny with large-chunk TTT"


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_each_kind_load_as_that_kind_and_no_other(kind: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", ssm=kind)
    network = components.load(folder, "transformer")
    assert network.config.ssm == kind
    values = model_folder.read_config(folder, "transformer")
    for other in {"none", *KINDS} - {kind}:
        model_folder.write_config(folder, "transformer", {**values, "ssm": other})
        ran = run_ttv("sample", "a red circle", "--model", folder, "-o", tmp_path / "x.mp4")
        assert ran.code == 3, other
        assert "the weights do not fit the model" in ran.stderr


@pytest.mark.parametrize(
    ("start", "ssm"), [("ttt_linear", "ttt_large_chunk"), ("ttt_large_chunk", "ttt_mlp")]
)
def test_layers_of_another_kind_are_no_start(
    start: str, ssm: str, tiny_data: TinyData, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_data.model, tmp_path / "model")
    other = write_model(tmp_path / "other", ssm=start)
    shutil.rmtree(model / "transformer")
    shutil.copytree(other / "transformer", model / "transformer")
    words = ("--model", model, "--data", tiny_data.latents, "--text", tiny_data.text)
    ran = run_ttv("train", *words, "--out", tmp_path / "run", "--steps", "1", "--set", f"ssm={ssm}")
    assert ran.code == 3, ran.stderr
    assert "missing" in ran.stderr


def test_a_chunk_length_without_large_chunks_is_refused(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    words = ("--model", tiny_data.model, "--data", tiny_data.latents, "--text", tiny_data.text)
    more = ("--out", tmp_path / "run", "--dry-run", "--set", "ttt_chunk_tokens=64")
    ran = run_ttv("train", *words, *more)
    assert ran.code == 2
    assert "ttt_chunk_tokens is a setting of ttt_large_chunk" in ran.stderr


def test_the_length_of_a_chunk_can_be_changed_in_training(
    trained: Path, tiny_data: TinyData
) -> None:
    settings = TrainConfig(
        data=tiny_data.latents,
        text=tiny_data.text,
        model=str(trained),
        ttt_chunk_tokens=7,
        steps=1,
        device="cpu",
    )
    task = build_task(settings, torch.device("cpu"), Silent())
    before = components.load(trained, "transformer").state_dict()
    assert task.trainer.model.config.ttt_chunk_tokens == 7
    for name, tensor in task.trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name])
