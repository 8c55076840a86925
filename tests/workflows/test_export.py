"""`ttv export` of models: every layout there and back, tensor for tensor, no foreign code run."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import transformer_config, write_model
from torch import Tensor
from torch.distributed import checkpoint as dcp

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.distributed_checkpoint import SavedTensors
from ttvcli.artifacts.tensor_file import write_sharded
from ttvcli.artifacts.torch_file import read_torch
from ttvcli.core.models.cogvideox.model import CogVideoXTransformer
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows import components
from ttvcli.workflows.export import ExportConfig, plan, run
from ttvcli.workflows.export_model import SAT_TRANSFORMER, SAT_VAE

NETWORKS = ("transformer", "vae", "text_encoder")


@pytest.fixture(scope="module")
def ttt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("ttt") / "model", ssm="ttt_mlp", world="none")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("plain") / "model", ssm="none", world="none")


def export(source: Path | str, out: Path, **settings: Any) -> Path:
    (path,) = run(ExportConfig(source=str(source), out=out, **settings)).paths
    return path


def state(folder: Path, component: str = "transformer") -> dict[str, Tensor]:
    return model_folder.open_weights(folder, component).load()


def assert_identical(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert tensor.shape == right[name].shape, name
        ours, theirs = (x.reshape(-1).view(torch.uint8) for x in (tensor, right[name]))
        assert torch.equal(ours, theirs), name


def test_a_folder_comes_back_as_it_was(ttt: Path, tmp_path: Path) -> None:
    out = export(ttt, tmp_path / "out")
    for component in NETWORKS:
        assert_identical(state(ttt, component), state(out, component))
    for component in model_folder.COMPONENTS:
        if component != "tokenizer":
            path = model_folder.config_path(ttt, component)
            assert json.loads(path.read_text()) == json.loads(
                model_folder.config_path(out, component).read_text()
            )
    assert (out / "tokenizer/spiece.model").read_bytes() == (
        ttt / "tokenizer/spiece.model"
    ).read_bytes()
    assert (out / "model_index.json").read_bytes() == (ttt / "model_index.json").read_bytes()
    assert model_folder.read_about(out) == model_folder.read_about(ttt)
    components.check_model(out)


def test_shards_and_half_precision_become_one_file_of_the_asked_dtype(
    plain: Path, tmp_path: Path
) -> None:
    source = export(plain, tmp_path / "source")
    inside = source / "transformer"
    tensors = state(source)
    (inside / "diffusion_pytorch_model.safetensors").unlink()
    write_sharded(inside, "diffusion_pytorch_model", tensors, shard_bytes=50_000)
    out = export(source, tmp_path / "out", dtype="bf16")
    assert [path.name for path in (out / "transformer").glob("*.safetensors*")] == [
        "diffusion_pytorch_model.safetensors"
    ]
    assert_identical(state(out), {name: value.bfloat16() for name, value in tensors.items()})


def test_a_ttt_checkpoint_goes_to_the_public_form_and_back(ttt: Path, tmp_path: Path) -> None:
    saved = export(ttt, tmp_path / "dcp", format="ttt-video")
    tensors = SavedTensors(saved)
    assert "dit.layers.1.seq_modeling_block.ssm.ttt.W1" in tensors
    ours = state(ttt)
    assert len(tensors) == len(ours)
    lr = "transformer_blocks.0.ttt.lr_weight"
    public = tensors["dit.layers.0.seq_modeling_block.ssm.ttt.learnable_ttt_lr_weight"]
    assert public.shape == (1, 1, 64)
    assert torch.equal(public[:, 0], ours[lr])
    # What is mapped from a file is written alone, not with the whole file.
    size = sum(file.stat().st_size for file in saved.glob("*.distcp"))
    assert size < sum(value.nbytes for value in ours.values()) + 2000 * len(ours)

    back = export(saved, tmp_path / "back", base=str(ttt), ttt_mini_batch=16)
    assert_identical(state(back), ours)
    assert_identical(state(back, "vae"), state(ttt, "vae"))
    values = model_folder.read_config(back, "transformer")
    was = model_folder.read_config(ttt, "transformer")
    changed = {key: value for key, value in values.items() if value != was[key]}
    assert changed == {"norm_eps": 1e-6, "ttt_lr_mode": "last-row", "ttt_norm_eps": 1e-6}
    assert model_folder.read_config(back, "vae")["scaling_factor"] == 1.0
    assert model_folder.read_about(back)["sample"]["guidance_mode"] == "legacy"
    components.check_model(back)


def test_the_public_defaults_follow_from_the_tensors(ttt: Path, tmp_path: Path) -> None:
    saved = export(ttt, tmp_path / "dcp", format="ttt-video")
    base = write_model(tmp_path / "base", ssm="none", world="none")
    back = export(saved, tmp_path / "back", base=str(base))
    values = model_folder.read_config(back, "transformer")
    assert (values["ssm"], values["ttt_mini_batch"], values["ttt_base_lr"]) == ("ttt_mlp", 64, 0.1)
    assert components.build("transformer", values).config.ssm == "ttt_mlp"


def test_a_checkpoint_of_public_training_is_read_without_its_optimizer(
    ttt: Path, tmp_path: Path
) -> None:
    bare = SavedTensors(export(ttt, tmp_path / "bare", format="ttt-video"))
    model = {name: bare[name] for name in bare}
    moments = {"state": {"dit.x": {"exp_avg": torch.zeros(2), "step": torch.tensor(3)}}}
    content = {"model": model, "optimizer": moments, "metadata": {"wandb_id": None}}
    dcp.save(content, checkpoint_id=str(tmp_path / "step-500"), no_dist=True)
    back = export(tmp_path / "step-500", tmp_path / "back", base=str(ttt))
    assert_identical(state(back), state(ttt))


class Evil:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_nothing_in_a_foreign_file_is_run(ttt: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    saved = export(ttt, tmp_path / "dcp", format="ttt-video")
    (saved / ".metadata").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(ArtifactError, match="metadata cannot be read"):
        export(saved, tmp_path / "a", base=str(ttt))
    torch.save({"module": {"w": torch.zeros(1)}, "extra": Evil(mark)}, tmp_path / "x.pt")
    with pytest.raises(ArtifactError, match="more than tensors"):
        export(tmp_path / "x.pt", tmp_path / "b", base=str(ttt))
    assert not mark.exists()


def test_sat_has_fused_attention_and_twelve_part_modulation(plain: Path, tmp_path: Path) -> None:
    out = export(plain, tmp_path / "sat", format="sat")
    assert (out / "transformer/latest").read_text() == "1"
    theirs = read_torch(out / SAT_TRANSFORMER)["module"]
    ours = state(plain)
    block = "transformer_blocks.1."
    fused = theirs["model.diffusion_model.transformer.layers.1.attention.query_key_value.weight"]
    parts = [ours[f"{block}attn1.to_{name}.weight"] for name in "qkv"]
    assert torch.equal(fused, torch.cat(parts))
    twelve = theirs["model.diffusion_model.mixins.adaln_layer.adaLN_modulations.1.1.bias"].chunk(12)
    norm1 = ours[f"{block}norm1.linear.bias"].chunk(6)  # video shift, scale, gate, then text
    norm2 = ours[f"{block}norm2.linear.bias"].chunk(6)
    expected = [*norm1[:3], *norm2[:3], *norm1[3:], *norm2[3:]]
    assert all(torch.equal(a, b) for a, b in zip(twelve, expected, strict=True))

    theirs, ours = read_torch(out / SAT_VAE)["state_dict"], state(plain, "vae")
    for name, same in {
        "decoder.up.3.block.1.norm2.conv_y.conv.weight": (
            "decoder.up_blocks.0.resnets.1.norm2.conv_y.conv.weight"
        ),
        "decoder.up.1.upsample.conv.bias": "decoder.up_blocks.2.upsamplers.0.conv.bias",
        "encoder.down.0.downsample.conv.weight": "encoder.down_blocks.0.downsamplers.0.conv.weight",
        "encoder.mid.block_2.conv1.conv.weight": "encoder.mid_block.resnets.1.conv1.conv.weight",
    }.items():
        assert torch.equal(theirs[name], ours[same])
    assert len(theirs) == len(ours)


def test_sat_comes_back_as_it_was(plain: Path, ttt: Path, tmp_path: Path) -> None:
    source = export(plain, tmp_path / "sat", format="sat")
    path = source / SAT_TRANSFORMER
    content = read_torch(path)
    other = {  # what real checkpoints hold besides
        "model.diffusion_model.mixins.pos_embed.pos_embedding": torch.zeros(1, 3, 64),
        "model.diffusion_model.mixins.pos_embed.freqs_sin": torch.zeros(3),
        "first_stage_model.encoder.x": torch.zeros(1),
    }
    path.unlink()  # it is mapped
    torch.save({"module": {**content["module"], **other}, "iteration": 3}, path)
    base = write_model(tmp_path / "base", ssm="none", seed=5, world="none")
    back = export(source, tmp_path / "back", base=str(base))
    for component in ("transformer", "vae"):
        assert_identical(state(back, component), state(plain, component))
    assert_identical(state(back, "text_encoder"), state(base, "text_encoder"))
    assert model_folder.read_config(back, "transformer")["norm_eps"] == 1e-6
    assert model_folder.read_about(back)["null_text"] == "zero"
    alone = export(path, tmp_path / "alone", base=str(base))
    assert_identical(state(alone), state(plain))
    assert_identical(state(alone, "vae"), state(base, "vae"))


def test_the_learned_positions_of_image_to_video_and_ofs_survive_sat(tmp_path: Path) -> None:
    from ttvcli.core.models.cogvideox.sat import from_sat, to_sat
    from ttvcli.core.models.rewriting import Rewritten

    config = {**transformer_config("none").to_dict(), "ofs_embed_dim": 16, "_class_name": "x"}
    config["use_learned_positional_embeddings"] = True
    network = components.build("transformer", config)
    ours = network.state_dict()
    sat = Rewritten(ours, to_sat(ours))
    back = Rewritten(sat, from_sat(sat, keep_positions=True))
    assert_identical(dict(back), dict(ours))
    assert "model.diffusion_model.ofs_embed.2.bias" in sat
    for name in back:  # shapes can be checked without the tensors
        assert back.like(name).shape == ours[name].shape
    dropped = from_sat(sat, keep_positions=False)
    assert set(ours) - set(dropped) == {"patch_embed.pos_embedding"}
    with pytest.raises(ValueError, match="no counterpart"):
        to_sat(CogVideoXTransformer(transformer_config("ttt_mlp")).state_dict())


def test_what_does_not_fit_together_is_refused_before_writing(
    ttt: Path, plain: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="this model has none"):
        export(plain, out, format="ttt-video")
    with pytest.raises(UsageError, match="SAT checkpoints have no TTT"):
        export(ttt, out, format="sat")
    chunks = write_model(tmp_path / "chunks", ssm="ttt_large_chunk", world="none")
    with pytest.raises(UsageError, match="no layers of large chunks"):
        export(chunks, out, format="ttt-video")
    saved = export(ttt, tmp_path / "dcp", format="ttt-video")
    with pytest.raises(UsageError, match="--base"):
        export(saved, out)
    with pytest.raises(UsageError, match="cannot be written as sat"):
        export(saved, out, base=str(ttt), format="sat")
    with pytest.raises(ArtifactError, match="of another shape"):
        export(saved, out, base="tiny")
    with pytest.raises(ArtifactError, match="nothing that can be exported"):
        export(tmp_path, out)
    assert not out.exists()


def test_a_second_run_does_nothing_and_another_is_refused(ttt: Path, tmp_path: Path) -> None:
    out = export(ttt, tmp_path / "out")
    stamp = (out / "ttv.json").stat().st_mtime_ns
    export(ttt, out)
    assert (out / "ttv.json").stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="the output holds the export"):
        export(ttt, out, dtype="bf16")
    export(ttt, out, dtype="bf16", force=True)
    assert {value.dtype for value in state(out).values()} == {torch.bfloat16}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="no export wrote it"):
        export(ttt, mine, force=True)
    assert (mine / "notes.txt").read_text() == "keep"


def test_the_plan_tells_family_and_bytes_and_writes_nothing(ttt: Path, tmp_path: Path) -> None:
    planned = plan(ExportConfig(source=str(ttt), out=tmp_path / "out", dtype="fp16"))
    weights = sum(t.numel() * 2 for name in NETWORKS for t in state(ttt, name).values())
    assert planned.bytes["disk"] == weights
    assert dict(planned.items)["family"] == "CogVideoX of other sizes with TTT-MLP"
    assert not (tmp_path / "out").exists()
