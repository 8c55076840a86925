"""Folders that diffusers wrote come out of `ttv export` as diffusers reads them, bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from parity.test_transformer import COMMON, VARIANTS, randomise
from PIL import Image
from variant_folders import FRAMES, SIZE, takes_image, write_variant

from ttvcli.artifacts import model_folder
from ttvcli.workflows import components
from ttvcli.workflows.export import ExportConfig, run
from ttvcli.workflows.sample import SampleConfig
from ttvcli.workflows.sample_request import check

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


def stored(folder: Path, component: str) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
    """What a component's files hold, tensor by tensor, to the byte."""
    weights = model_folder.open_weights(folder, component)
    return {
        name: (tensor.dtype, tensor.shape, tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in weights.load().items()
    }


def read_json(folder: Path, name: str) -> dict[str, object]:
    values: dict[str, object] = json.loads((folder / name).read_text(encoding="utf-8"))
    return values


@pytest.fixture(scope="module", params=VARIANTS)
def download(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A variant and its whole folder; read-only."""
    folder = tmp_path_factory.mktemp("download") / request.param
    return request.param, write_variant(folder, request.param)


def test_every_tensor_and_setting_of_a_download_makes_the_round_trip(
    download: tuple[str, Path], tmp_path: Path
) -> None:
    _, source = download
    out = tmp_path / "out"
    run(ExportConfig(source=str(source), out=out))
    for component in ("transformer", "vae", "text_encoder"):
        assert stored(out, component) == stored(source, component)
        assert read_json(out, f"{component}/config.json") == read_json(
            source, f"{component}/config.json"
        )
    for name in (
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/spiece.model",
    ):
        assert (out / name).read_bytes() == (source / name).read_bytes()


def test_every_variant_goes_to_sat_and_comes_back_as_the_clip_model_it_was(
    download: tuple[str, Path], tmp_path: Path
) -> None:
    variant, source = download
    run(ExportConfig(source=str(source), out=tmp_path / "sat", format="sat"))
    back = tmp_path / "back"
    run(ExportConfig(source=str(tmp_path / "sat"), out=back, base=str(source)))
    for component in ("transformer", "vae", "text_encoder"):
        assert stored(back, component) == stored(source, component)
    before, after = (read_json(folder, "transformer/config.json") for folder in (source, back))
    assert after == {**before, "norm_eps": 1e-6}
    image = None
    if takes_image(variant):
        image = tmp_path / "first.png"
        Image.new("RGB", SIZE, "red").save(image)
    made = check(SampleConfig(prompt="a dog", model=str(back), image=image))
    assert made.is_clip
    assert made.frames == FRAMES
    assert made.fps == (16 if variant.startswith("1.5") else 8)
    assert made.config.null_text == "zero"  # as its authors train
