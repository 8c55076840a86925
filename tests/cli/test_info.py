"""`ttv info` on every kind of artifact."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import run_ttv

from ttvcli.artifacts import checkpoint, model_folder, schema
from ttvcli.artifacts.atomic import write_json
from ttvcli.artifacts.manifest import write_manifest
from ttvcli.artifacts.tensor_file import write_tensors


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    weights = {"w": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}
    write_tensors(root / "plain.safetensors", weights)
    about = json.dumps({"kind": "latents", "schema_version": 1, "producer": "ttv 0", "fps": 16})
    write_tensors(root / "clip.safetensors", {"mean": torch.zeros(1, 1, 2, 2)}, {"ttv": about})
    model_folder.write_component(root / "model", "vae", {"latent_channels": 8}, weights)
    run = root / "run"
    run.mkdir()
    write_json(run / "ttv.json", schema.header("run", {"lr": 0.5}))
    checkpoint.save_checkpoint(run / "checkpoints", 20, model=weights, optimizer={"a": 1})
    (run / "metrics.jsonl").write_text('{"step": 20, "loss": 0.25}\n')
    clip = {"id": "a", "width": 64, "height": 48, "fps": 16, "frames": 49, "duration": 3.0625}
    write_manifest(
        root / "clips" / "manifest.jsonl",
        [
            {**clip, "segments": [{"caption": "x"}]},
            {**clip, "id": "b", "keep": False, "reasons": ["static"], "segments": [{}]},
        ],
    )
    write_json(root / "clips" / "ttv.json", schema.header("clips", {"size": 64}))
    (root / "story.txt").write_text("one\ntwo\n")
    write_json(root / "out.json", {**schema.header("video", {"seed": 42}), "prompt": "a dog"})
    return root


@pytest.mark.parametrize(
    ("name", "kind", "facts"),
    [
        ("plain.safetensors", "weights", {"parameters": 10, "dtypes": ["BF16", "F32"]}),
        ("clip.safetensors", "latents", {"fps": 16}),
        ("model", "model", {"transformer": "absent"}),
        ("run", "run", {"checkpoints": [20], "last metrics": {"step": 20, "loss": 0.25}}),
        ("run/checkpoints/step-000020", "checkpoint", {"step": 20, "optimizer": True}),
        ("clips", "clips", {"clips": 2, "dropped": 1, "captioned": 1, "sizes": {"64x48": 2}}),
        ("clips/manifest.jsonl", "manifest", {"clips": 2, "reasons": {"static": 1}}),
        ("story.txt", "storyboard", {"videos": 1, "seconds": [6]}),
        ("out.json", "video", {"prompt": "a dog"}),
    ],
)
def test_info_tells_kind_and_facts(artifacts: Path, name: str, kind: str, facts: dict) -> None:
    ran = run_ttv("info", artifacts / name, "--json")
    assert ran.code == 0
    assert ran.json["kind"] == kind
    assert {key: ran.json[key] for key in facts} == facts
    table = run_ttv("info", artifacts / name)
    assert table.stdout.startswith("kind ")
    assert table.code == 0


def test_the_parts_of_a_model_are_counted(artifacts: Path) -> None:
    told = run_ttv("info", "--model", artifacts / "model", "--json").json
    assert told["vae"] == {
        "parameters": 10,
        "dtypes": ["BF16", "F32"],
        "bytes": 32,
        "latent_channels": 8,
    }


COMMON = {"attention_head_dim": 64, "sample_width": 90, "sample_height": 60, "sample_frames": 49}
FIVE = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}


@pytest.mark.parametrize(
    ("values", "family", "clip"),
    [
        ({"num_layers": 30, "num_attention_heads": 30}, "CogVideoX-2B", "49 at 8"),
        (FIVE, "CogVideoX-5B", "49 at 8"),
        ({**FIVE, "ssm": "ttt_mlp"}, "CogVideoX-5B with TTT-MLP", "49 at 16"),
        ({**FIVE, "ssm": "ttt_linear"}, "CogVideoX-5B with TTT-Linear", "49 at 16"),
        ({**FIVE, "ssm": "ttt_large_chunk"}, "CogVideoX-5B with large-chunk TTT", "49 at 16"),
        (
            {**FIVE, "in_channels": 32, "use_learned_positional_embeddings": True},
            "CogVideoX-5B-I2V",
            "49 at 8",
        ),
        ({**FIVE, "patch_size_t": 2, "sample_width": 300}, "CogVideoX1.5-5B", "81 at 16"),
        (
            {**FIVE, "patch_size_t": 2, "in_channels": 32, "ofs_embed_dim": 512},
            "CogVideoX1.5-5B-I2V",
            "81 at 16",
        ),
        ({**FIVE, "num_layers": 6}, "CogVideoX of other sizes", "49 at 8"),
    ],
)
def test_a_published_model_is_recognised(
    values: dict, family: str, clip: str, tmp_path: Path
) -> None:
    weights = {"w": torch.zeros(6, 2, dtype=torch.bfloat16), "norm": torch.zeros(2)}
    model_folder.write_component(tmp_path, "transformer", {**COMMON, **values}, weights)
    model_folder.write_component(tmp_path, "vae", {"block_out_channels": [1] * 4}, weights)
    if "ssm" in values:
        model_folder.write_about(tmp_path, {"fps": 16})
    told = run_ttv("info", tmp_path, "--json").json
    assert told["family"] == family
    assert f"{told['made for']['frames']} at {told['made for']['fps']}" == clip
    large = "1.5" in family
    assert told["made for"]["size"] == ("1360x768" if large else "720x480")
    assert told["runs in"] == "bf16"
    assert told["transformer"]["dtypes"] == ["BF16", "F32"]
    assert told["weights in memory"] == {
        "largest": "transformer",
        "bytes one network at a time": 28,
        "bytes all together": 56,
    }
    assert "56 (56 B)" in run_ttv("info", tmp_path).stdout


def test_the_built_in_model_is_called_tiny() -> None:
    told = run_ttv("info", "tiny", "--json").json
    assert told["family"] == "tiny with TTT-Linear"
    assert told["made for"] == {"size": "64x64", "frames": 49, "fps": 16}
    assert told["runs in"] == "fp32"


def test_info_answers_without_torch(artifacts: Path) -> None:
    code = (
        "import sys\n"
        "from ttvcli.cli.main import main\n"
        "names = sys.argv[1:]\n"
        "assert all(main(['info', name]) == 0 for name in names)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    config = {**COMMON, **FIVE}
    model_folder.write_component(artifacts / "full", "transformer", config, {"w": torch.zeros(2)})
    names = [
        "plain.safetensors",
        "full",
        "model",
        "run",
        "run/checkpoints/step-000020",
        "clips",
        "out.json",
    ]
    subprocess.run(
        [sys.executable, "-c", code, *(str(artifacts / name) for name in names)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x01\x02", "header length"),
        (b"\x02" + b"\0" * 7 + b"{}extra", "it has 15 bytes, its header announces 10"),
        (b"\x02" + b"\0" * 7 + b"[]", "header cannot be read"),
    ],
)
def test_a_damaged_file_ends_with_3(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    ran = run_ttv("info", path)
    assert ran.code == 3
    assert what in ran.stderr
    assert str(path) in ran.stderr


def test_what_is_no_artifact_ends_with_3(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    assert run_ttv("info", tmp_path).code == 3
    assert run_ttv("info", tmp_path / "a.mp4").code == 3
    assert run_ttv("info", tmp_path / "absent").code == 3
    assert run_ttv("info").code == 2
