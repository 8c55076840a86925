"""Files of text embeddings."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ttvcli.artifacts.embeddings import (
    load_embeddings,
    read_embeddings_metadata,
    save_embeddings,
)
from ttvcli.errors import ArtifactError

ABOUT: dict[str, Any] = {
    "settings_hash": "0123456789abcdef",
    "encoder": "T5EncoderModel",
    "encoder_hash": "fedcba9876543210",
    "max_tokens": 6,
    "captions": ["a red circle", "ein blaues Quadrat — été"],
}


def test_embeddings_come_back_as_bf16_with_their_texts(tmp_path: Path) -> None:
    sent = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    save_embeddings(tmp_path / "a.safetensors", sent, torch.tensor([4, 6]), ABOUT)
    embeddings, lengths, about = load_embeddings(tmp_path / "a.safetensors")
    assert torch.equal(embeddings, sent.bfloat16())
    assert lengths.tolist() == [4, 6]
    assert about["captions"] == ABOUT["captions"]
    assert read_embeddings_metadata(tmp_path / "a.safetensors") == about


@pytest.mark.parametrize(
    ("shape", "lengths"), [((6, 4), [1, 1]), ((3, 6, 4), [1, 1]), ((2, 6, 4), [1])]
)
def test_shapes_that_do_not_belong_together_are_refused(
    tmp_path: Path, shape: tuple[int, ...], lengths: list[int]
) -> None:
    with pytest.raises(ValueError, match="S = 2 captions"):
        save_embeddings(tmp_path / "a", torch.zeros(shape), torch.tensor(lengths), ABOUT)


def test_missing_facts_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="encoder_hash"):
        save_embeddings(path, torch.zeros(1, 6, 4), torch.ones(1), {"captions": [""]})
    save_embeddings(path, torch.zeros(2, 6, 4), torch.ones(2), ABOUT)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="damaged"):
        load_embeddings(path)
