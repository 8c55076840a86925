"""Loading networks: headers first, one tensor at a time, every layout of public folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import write_model

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.tensor_file import Weights, write_sharded, write_tensors
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows import components
from ttvcli.workflows.dtype_choice import choose_dtype

STEM = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("original") / "model", world="none")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "model")
    return tmp_path / "model"


def stored(folder: Path, component: str) -> dict[str, torch.Tensor]:
    return model_folder.open_weights(folder, component).load()


def replace_weights(folder: Path, component: str, tensors: dict[str, Any]) -> None:
    config = json.loads(model_folder.config_path(folder, component).read_text())
    model_folder.write_component(folder, component, config, tensors)


def assert_same(network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    state = network.state_dict()
    assert state.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(state[name], tensor.to(state[name].dtype)), name
        assert state[name].device.type == "cpu"


def test_all_that_does_not_fit_is_named_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = stored(folder, "transformer")
    tensors["stranger"] = tensors.pop("norm_final.weight")
    tensors["proj_out.bias"] = torch.zeros(3)
    replace_weights(folder, "transformer", tensors)
    monkeypatch.setattr(Weights, "__getitem__", lambda *_: pytest.fail("a tensor was loaded"))
    monkeypatch.setattr(Weights, "read_into", lambda *_: pytest.fail("a tensor was loaded"))
    for work in (lambda: components.load(folder, "transformer"), lambda: check(folder)):
        with pytest.raises(ArtifactError) as caught:
            work()
        for part in (
            "1 missing: norm_final.weight",
            "1 unknown: stranger",
            "proj_out.bias is [3], not [16]",
        ):
            assert part in caught.value.what


def check(folder: Path) -> None:
    components.check_model(folder)


def test_a_network_has_no_memory_until_its_weights_are_found_to_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = stored(folder, "vae")
    tensors.pop("decoder.conv_in.conv.bias")
    replace_weights(folder, "vae", tensors)
    places: list[set[str]] = []
    original = components.build

    def watched(*arguments: Any) -> torch.nn.Module:
        network = original(*arguments)
        places.append({tensor.device.type for tensor in network.state_dict().values()})
        return network

    monkeypatch.setattr(components, "build", watched)
    with pytest.raises(ArtifactError, match=r"1 missing: decoder\.conv_in\.conv\.bias"):
        components.load(folder, "vae")
    assert places == [{"meta"}]


def test_a_vae_whose_file_names_no_scaling_factor_has_that_of_diffusers(folder: Path) -> None:
    path = model_folder.config_path(folder, "vae")
    values = json.loads(path.read_text())
    del values["scaling_factor"]
    path.write_text(json.dumps(values))
    network: Any = components.load(folder, "vae")
    found = components.scaling_factor(model_folder.read_config(folder, "vae"))
    assert found == network.config.scaling_factor == 1.15258426


def test_weights_of_the_asked_dtype_stay_mapped_and_others_are_read_one_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = Weights.read_into

    def watched(self: Weights, name: str, target: torch.Tensor) -> None:
        read.append(name)
        whole(self, name, target)

    monkeypatch.setattr(Weights, "read_into", watched)
    tensors = stored(folder, "transformer")
    assert_same(components.load(folder, "transformer", dtype="fp32"), tensors)
    assert read == []
    assert_same(components.load(folder, "transformer", dtype="bf16"), tensors)
    assert sorted(read) == sorted(tensors)


def test_changing_a_mapped_weight_leaves_the_file_alone(folder: Path) -> None:
    before = stored(folder, "vae")
    network = components.load(folder, "vae")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    after = stored(folder, "vae")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shards_and_dtypes_of_downloads_load(folder: Path, dtype: torch.dtype) -> None:
    tensors = {name: value.to(dtype) for name, value in stored(folder, "transformer").items()}
    inside = folder / "transformer"
    (inside / f"{STEM}.safetensors").unlink()
    paths = write_sharded(inside, STEM, tensors, shard_bytes=20_000)
    assert len(paths) > 3
    assert_same(components.load(folder, "transformer", dtype="fp32"), tensors)
    paths[-1].unlink()  # the index; the shards count themselves
    assert_same(components.load(folder, "transformer", dtype="fp32"), tensors)
    paths[1].unlink()
    with pytest.raises(ArtifactError, match=rf"1 of {len(paths) - 1} weight files are missing"):
        components.load(folder, "transformer")


@pytest.mark.parametrize("plain_is_there", [True, False])
def test_a_variant_is_taken_only_without_the_plain_weights(
    folder: Path, plain_is_there: bool
) -> None:
    tensors = stored(folder, "vae")
    half = {name: value.half() for name, value in tensors.items()}
    inside = folder / "vae"
    write_sharded(inside, f"{STEM}.fp16", half, shard_bytes=4000)
    index = inside / f"{STEM}.fp16.safetensors.index.json"
    index.rename(inside / f"{STEM}.safetensors.index.fp16.json")  # as diffusers calls it
    if plain_is_there:
        (inside / f"{STEM}.safetensors.index.json").write_text(
            json.dumps({"weight_map": dict.fromkeys(tensors, f"{STEM}.safetensors")})
        )
    else:
        (inside / f"{STEM}.safetensors").unlink()
    assert_same(components.load(folder, "vae"), tensors if plain_is_there else half)


def test_the_tied_embedding_of_t5_may_have_either_name_or_both(folder: Path) -> None:
    tensors = stored(folder, "text_encoder")
    twin = "encoder.embed_tokens.weight"
    replace_weights(folder, "text_encoder", {**tensors, twin: tensors["shared.weight"].clone()})
    assert_same(components.load(folder, "text_encoder"), tensors)
    other = {twin if name == "shared.weight" else name: value for name, value in tensors.items()}
    replace_weights(folder, "text_encoder", other)
    assert_same(components.load(folder, "text_encoder"), tensors)


def test_in_half_precision_t5_keeps_what_overflows_in_fp32(folder: Path) -> None:
    network = components.load(folder, "text_encoder", dtype="fp16")
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    wide = [name for name, dtype in kinds.items() if dtype == torch.float32]
    assert wide
    assert all(name.endswith("DenseReluDense.wo.weight") for name in wide)
    assert len(wide) < len(kinds)


def test_a_table_of_positions_stored_in_float64_loads(folder: Path) -> None:
    tensors = stored(folder, "transformer")
    config = model_folder.read_config(folder, "transformer")
    config |= {"use_learned_positional_embeddings": True, "ssm": "none", "_class_name": "x"}
    tensors = {k: v for k, v in tensors.items() if ".ttt." not in k and "_gate_" not in k}
    table = torch.randn(1, config["max_text_seq_length"] + 13, 64, dtype=torch.float64)
    tensors["patch_embed.pos_embedding"] = table
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    write_tensors(folder / "transformer" / f"{STEM}.safetensors", tensors)
    network = components.load(folder, "transformer", dtype="bf16")
    assert network.state_dict()["patch_embed.pos_embedding"].dtype == torch.bfloat16


def test_a_config_of_the_first_release_gets_the_defaults_of_its_time(folder: Path) -> None:
    config = model_folder.read_config(folder, "transformer")
    tensors = stored(folder, "transformer")
    tensors = {k: v for k, v in tensors.items() if ".ttt." not in k and "_gate_" not in k}
    newer = ("ofs_embed_dim", "patch_size_t", "patch_bias", "use_learned_positional_embeddings")
    ours = [key for key in config if key.startswith("ttt_") or key == "ssm"]
    for key in (*newer, *ours, "use_rotary_positional_embeddings"):
        del config[key]
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    write_tensors(folder / "transformer" / f"{STEM}.safetensors", tensors)
    network: Any = components.load(folder, "transformer")
    assert network.config.use_rotary_positional_embeddings is False
    assert network.config.patch_bias is True
    assert network.config.patch_size_t is None


@pytest.mark.parametrize(
    ("kept", "wanted", "chosen"),
    [
        (torch.bfloat16, "auto", "bf16"),
        (torch.float16, "auto", "bf16"),  # on the CPU
        (torch.float32, "auto", "fp32"),
        (torch.bfloat16, "fp32", "fp32"),
        (torch.float16, "fp16", "fp16"),
        (torch.float16, "bf16", "bf16"),
    ],
)
def test_arithmetic_is_that_of_the_stored_weights(
    folder: Path, kept: torch.dtype, wanted: str, chosen: str
) -> None:
    tensors = {name: value.to(kept) for name, value in stored(folder, "transformer").items()}
    write_tensors(folder / "transformer" / f"{STEM}.safetensors", tensors)
    assert choose_dtype(wanted, folder, "cpu") == chosen


def test_fp16_is_refused_for_weights_stored_as_bf16(folder: Path) -> None:
    tensors = {name: value.bfloat16() for name, value in stored(folder, "transformer").items()}
    write_tensors(folder / "transformer" / f"{STEM}.safetensors", tensors)
    with pytest.raises(UsageError, match="black") as caught:
        choose_dtype("fp16", folder, "cpu")
    assert "--dtype bf16" in caught.value.fix
    model_folder.write_about(folder, {"world": "tiny"})
    assert choose_dtype("auto", folder, "cpu") == "fp32"


def test_a_ttt_backend_that_cannot_run_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTV_TTT_BACKEND", "tritn")
    with pytest.raises(UsageError, match="TTV_TTT_BACKEND must be one of auto, scan"):
        components.device_named("cpu")
    monkeypatch.setenv("TTV_TTT_BACKEND", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(UsageError, match="TTV_TTT_BACKEND is 'triton', which cannot run"):
        components.device_named("cpu")
    monkeypatch.setenv("TTV_TTT_BACKEND", "scan")
    assert components.device_named("cpu").type == "cpu"
