"""Latents files."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ttvcli.artifacts.embeddings import save_embeddings
from ttvcli.artifacts.latents import load_latents, read_latents_metadata, save_latents
from ttvcli.errors import ArtifactError, ExitCode

ABOUT: dict[str, Any] = {
    "settings_hash": "0123456789abcdef",
    "vae": "AutoencoderKLCogVideoX",
    "vae_hash": "fedcba9876543210",
    "fps": 16,
    "width": 64,
    "height": 48,
    "frames": 9,
    "source_sha256": "00" * 32,
}


def draw(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, 6, 8, generator=torch.Generator().manual_seed(seed))


def save(path: Path, **changes: Any) -> Path:
    save_latents(path, draw(0), draw(1), {**ABOUT, **changes})
    return path


def test_latents_come_back_as_bf16(tmp_path: Path) -> None:
    mean, logvar, about = load_latents(save(tmp_path / "a.safetensors"))
    assert torch.equal(mean, draw(0).bfloat16())
    assert torch.equal(logvar, draw(1).bfloat16())
    assert about["kind"] == "latents"
    assert {key: about[key] for key in ABOUT} == ABOUT


def test_equal_latents_are_equal_files_even_from_other_processes(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[2]]\n"
        "from pathlib import Path\n"
        "from importlib import util\n"
        "spec = util.spec_from_file_location('t', sys.argv[3]); t = util.module_from_spec(spec)\n"
        "spec.loader.exec_module(t); t.save(Path(sys.argv[1]))\n"
    )
    first = save(tmp_path / "a.safetensors").read_bytes()
    second = tmp_path / "b.safetensors"
    subprocess.run(
        [sys.executable, "-c", code, str(second), str(Path(__file__).parent.parent), __file__],
        check=True,
    )
    assert first == second.read_bytes()


def test_metadata_can_be_read_without_torch(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors")
    code = (
        "import sys; from ttvcli.artifacts.latents import read_latents_metadata as r\n"
        "assert r(sys.argv[1])['frames'] == 9 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_damaged_file_is_named(tmp_path: Path, size: int) -> None:
    path = save(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:size])
    for read in (read_latents_metadata, load_latents):
        with pytest.raises(ArtifactError) as caught:
            read(path)
        assert caught.value.code == ExitCode.BAD_INPUT
        assert str(path) in caught.value.where


def test_a_missing_file_and_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        load_latents(tmp_path / "absent.safetensors")
    about = {
        "settings_hash": "",
        "encoder": "",
        "encoder_hash": "",
        "max_tokens": 2,
        "captions": [""],
    }
    path = tmp_path / "text.safetensors"
    save_embeddings(path, torch.zeros(1, 2, 3), torch.ones(1), about)
    with pytest.raises(ArtifactError, match="embeddings"):
        load_latents(path)


def test_wrong_tensors_and_missing_facts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"\[C, T, H, W\]"):
        save_latents(path, draw(0)[0], draw(1)[0], ABOUT)
    with pytest.raises(ValueError, match="alike"):
        save_latents(path, draw(0), draw(1)[:, :1], ABOUT)
    with pytest.raises(ValueError, match="vae_hash"):
        save_latents(path, draw(0), draw(1), {k: v for k, v in ABOUT.items() if k != "vae_hash"})
    assert list(tmp_path.iterdir()) == []
