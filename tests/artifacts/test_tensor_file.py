"""Safetensors files: ours can be read by the library, the library's by us, byte for byte stable."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from ttvcli.artifacts.tensor_file import (
    Weights,
    read_layout,
    write_sharded,
    write_tensors,
)
from ttvcli.artifacts.weight_files import weight_files
from ttvcli.errors import ArtifactError

TENSORS = {
    "half": torch.arange(15, dtype=torch.bfloat16).reshape(3, 5),
    "wide": torch.arange(7, dtype=torch.float64),
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0, 2),
    "turned": torch.arange(24.0).reshape(4, 6).T,
    "flag": torch.tensor([True, False]),
}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype
        for name in left
    )


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"b": "2", "a": "1"})
    assert equal(safetensors.torch.load_file(path), TENSORS)
    layout = read_layout(path)
    assert layout.metadata == {"a": "1", "b": "2"}
    assert layout.tensors["turned"].shape == (6, 4)
    assert layout.tensors["half"].dtype == "BF16"
    assert layout.elements == sum(tensor.numel() for tensor in TENSORS.values())


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    safetensors.torch.save_file(contiguous, tmp_path / "x.safetensors", {"format": "pt"})
    assert equal(Weights([tmp_path / "x.safetensors"]).load(), TENSORS)


def test_a_tensor_can_be_read_into_another_dtype_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttvcli.artifacts.tensor_file._PIECE", 4)
    write_tensors(tmp_path / "x.safetensors", TENSORS)
    weights = Weights([tmp_path / "x.safetensors"])
    for name, tensor in TENSORS.items():
        target = torch.full(tensor.shape, 9, dtype=torch.float64)
        weights.read_into(name, target)
        assert torch.equal(target, tensor.double())
        same = torch.full(tensor.shape, 1).to(tensor.dtype)  # read without a piece between
        weights.read_into(name, same)
        assert torch.equal(same, tensor)
        assert weights.like(name).shape == tensor.shape
        assert weights.like(name).dtype == tensor.dtype
    with pytest.raises(ValueError, match="half"):
        weights.read_into("half", torch.zeros(5, 3))


def test_the_same_tensors_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    metadata = {str(number): "x" for number in range(20)}
    write_tensors(tmp_path / "a", TENSORS, metadata)
    turned = dict(reversed(TENSORS.items()))
    write_tensors(tmp_path / "b", turned, dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_large_weights_are_sharded_with_an_index_and_read_back(tmp_path: Path) -> None:
    paths = write_sharded(tmp_path, "model", TENSORS, shard_bytes=60)
    assert paths[-1].name == "model.safetensors.index.json"
    assert len(paths) > 2
    weights = Weights(weight_files(tmp_path))
    assert set(weights) == set(TENSORS)
    assert equal(weights.load(), TENSORS)
    paths[0].unlink()
    with pytest.raises(ArtifactError, match=r"1 of . weight files are missing: model-00001"):
        weight_files(tmp_path)


def test_the_plain_file_is_preferred_to_a_variant(tmp_path: Path) -> None:
    for name in ("model.fp16.safetensors", "model.safetensors"):
        write_tensors(tmp_path / name, TENSORS)
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_a_file_cut_short_is_told_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="its header announces"):
        read_layout(path)
    with pytest.raises(ArtifactError, match="no weights"):
        weight_files(tmp_path / "nowhere")
