"""Folders that diffusers wrote come out of `ttv export` as diffusers reads them, bit for bit."""

from pathlib import Path

import pytest
import torch
from parity.test_transformer import COMMON, VARIANTS, randomise

from ttvcli.artifacts import model_folder
from ttvcli.workflows import components
from ttvcli.workflows.export import ExportConfig, run

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_of_diffusers_makes_the_round_trip(variant: str, tmp_path: Path) -> None:
    network = diffusers.CogVideoXTransformer3DModel(**{**COMMON, **VARIANTS[variant]}).eval()
    randomise(network, torch.Generator().manual_seed(0))
    source = tmp_path / "source"
    network.save_pretrained(source / "transformer", max_shard_size="100KB")
    assert len(list((source / "transformer").glob("*.safetensors"))) > 1
    run(ExportConfig(source=str(source), out=tmp_path / "out"))
    again = diffusers.CogVideoXTransformer3DModel.from_pretrained(tmp_path / "out" / "transformer")
    before, after = network.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    stored = model_folder.open_weights(source, "transformer")
    written = model_folder.open_weights(tmp_path / "out", "transformer")
    for name, tensor in stored.load().items():  # float64 where diffusers stores a buffer so
        assert torch.equal(written[name], tensor)
        assert written[name].dtype == tensor.dtype
    for name in before:
        assert torch.equal(before[name], after[name]), name
    ours = components.load(tmp_path / "out", "transformer", dtype="fp32").state_dict()
    for name, tensor in stored.load().items():
        assert torch.equal(ours[name], tensor.float()), name
