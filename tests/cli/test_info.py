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


def test_info_answers_without_torch(artifacts: Path) -> None:
    code = (
        "import sys\n"
        "from ttvcli.cli.main import main\n"
        "names = sys.argv[1:]\n"
        "assert all(main(['info', name]) == 0 for name in names)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    names = [
        "plain.safetensors",
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
