"""Model folders: names, missing parts, shapes checked before loading, hashes."""

import json
from pathlib import Path

import pytest
import torch

from ttvcli.artifacts import model_folder as models
from ttvcli.errors import ArtifactError

WEIGHTS = {"w": torch.ones(2, 3), "b": torch.zeros(3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    models.write_component(path, "vae", {"latent_channels": 8}, WEIGHTS)
    models.write_component(path, "text_encoder", {"d_model": 16}, WEIGHTS)
    models.write_config(path, "scheduler", {"beta_start": 0.1})
    models.write_file(path, "tokenizer/spiece.model", b"pieces")
    return path


def test_a_written_component_reads_back(folder: Path) -> None:
    assert models.read_config(folder, "vae") == {"latent_channels": 8}
    assert models.read_config(folder, "scheduler") == {"beta_start": 0.1}
    weights = models.open_weights(folder, "vae")
    assert torch.equal(weights["w"], WEIGHTS["w"])
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    assert (folder / "text_encoder" / "model.safetensors").is_file()
    index = json.loads((folder / "model_index.json").read_text())
    assert index["vae"] == ["diffusers", "AutoencoderKLCogVideoX"]


def test_a_path_and_a_builtin_name_resolve(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "BUILTIN", tmp_path)
    assert models.resolve_model(folder) == folder
    assert models.resolve_model("mine") == folder
    with pytest.raises(ArtifactError, match="no model 'mime'") as caught:
        models.resolve_model("mime")
    assert "did you mean mine?" in caught.value.fix
    assert "CogVideoX" in caught.value.fix
    with pytest.raises(ArtifactError, match="not a model folder"):
        models.resolve_model(tmp_path)


def test_a_missing_part_is_named(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="no transformer") as caught:
        models.read_config(folder, "transformer")
    assert str(folder / "transformer") in caught.value.where
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="no weights"):
        models.open_weights(folder, "vae")


def test_names_and_shapes_are_compared_from_headers(folder: Path) -> None:
    weights = models.open_weights(folder, "vae")
    models.check_weights(weights, {"w": (2, 3), "b": (3,)}, where=folder)
    with pytest.raises(ArtifactError) as caught:
        models.check_weights(weights, {"w": (2, 4), "c": (1,)}, where=folder)
    for part in ("1 missing: c", "1 unknown: b", "w is [2, 3], not [2, 4]"):
        assert part in caught.value.what


def test_the_hash_changes_with_weights_and_configuration(folder: Path) -> None:
    first = models.component_hash(folder, "vae")
    assert len(first) == 16
    assert models.component_hash(folder, "vae") == first
    models.write_component(folder, "vae", {"latent_channels": 9}, WEIGHTS)
    second = models.component_hash(folder, "vae")
    models.write_component(folder, "vae", {"latent_channels": 9}, {**WEIGHTS, "b": torch.ones(3)})
    assert len({first, second, models.component_hash(folder, "vae")}) == 3


def test_a_seal_finds_what_was_changed_or_lost(folder: Path) -> None:
    models.write_about(folder, {"null_text": "zero"})
    models.seal(folder)
    assert models.read_about(folder)["null_text"] == "zero"
    assert models.broken_components(folder) == []
    models.write_file(folder, "tokenizer/spiece.model", b"other")
    (folder / "vae" / "config.json").unlink()
    assert sorted(models.broken_components(folder)) == ["tokenizer", "vae"]


def test_a_copy_has_the_components_and_no_stale_seal(folder: Path, tmp_path: Path) -> None:
    models.write_about(folder, {"null_text": "zero"})
    models.seal(folder)
    copy = tmp_path / "copy"
    models.copy_components(folder, copy, skip=("text_encoder",))
    assert models.component_hash(copy, "vae") == models.component_hash(folder, "vae")
    assert not models.has_component(copy, "text_encoder")
    assert models.has_component(copy, "tokenizer")
    assert models.read_about(copy) == {"null_text": "zero"}
