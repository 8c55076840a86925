"""Memory in `ttv sample`: limits, offloading, the plan, and random models to try them on."""

import dataclasses
import math
import shutil
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_ttv
from PIL import Image
from tiny_model import TinyData

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.video import read_sidecar
from ttvcli.core.device import DTYPES
from ttvcli.core.memory.streaming import StreamedBlock
from ttvcli.core.models.vae.tiles import Tiling
from ttvcli.core.models.vae.tiling import tiled_decode
from ttvcli.errors import UsageError, WouldNotFit
from ttvcli.workflows import components, generate, memory_plan
from ttvcli.workflows import offload as offloading
from ttvcli.workflows.bench_model import BenchModelConfig, draw, plan, run
from ttvcli.workflows.memory_plan import check_memory, limits_of, parse_bytes, plan_memory
from ttvcli.workflows.sample import SampleConfig
from ttvcli.workflows.sample_request import Request, check
from ttvcli.workflows.step import SILENT

PROMPT = "a red circle moves right"
SHAPES: dict[str, dict[str, Any]] = {
    "transformer": {
        "num_attention_heads": 1,
        "num_layers": 4,
        "in_channels": 4,
        "out_channels": 4,
        "text_embed_dim": 16,
        "time_embed_dim": 16,
        "sample_width": 4,
        "sample_height": 4,
        "max_text_seq_length": 32,
        "ttt_mini_batch": 16,
    },
    "vae": {
        "block_out_channels": (8, 8, 8, 8),
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "text_encoder": {
        "vocab_size": 256,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_heads": 2,
        "num_layers": 3,
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with TTT, in the layout of the full-size ones; read-only."""
    out = tmp_path_factory.mktemp("random") / "model"
    run(BenchModelConfig(out=out, ssm="ttt_mlp", shapes=SHAPES))
    return out


def request(model: Path | str, **settings: Any) -> Request:
    return check(SampleConfig(prompt=PROMPT, model=str(model), device="cpu", **settings))


def test_a_random_model_is_a_whole_one_and_the_same_each_time(model: Path, tmp_path: Path) -> None:
    for component in ("transformer", "vae", "text_encoder"):
        network = components.load(model, component, dtype="bf16")
        assert all(bool(p.isfinite().all()) for p in network.parameters())
    infos = model_folder.open_weights(model, "transformer").infos
    assert {info.dtype for info in infos.values()} == {"BF16"}
    run(BenchModelConfig(out=tmp_path / "again", ssm="ttt_mlp", shapes=SHAPES))
    for name in ("transformer", "text_encoder"):
        again = model_folder.component_hash(tmp_path / "again", name)
        assert again == model_folder.component_hash(model, name)


def test_random_weights_of_different_names_differ() -> None:
    a, b = (draw(name, (20, 30), torch.float32, 0) for name in ("a.weight", "b.weight"))
    assert not torch.equal(a, b)
    assert draw("norm.weight", (5,), torch.float32, 0).eq(1).all()


def test_blocks_from_disk_make_the_same_video(model: Path, tmp_path: Path) -> None:
    made = {}
    for offload in ("none", "disk"):
        out = tmp_path / f"{offload}.mp4"
        words = ("--model", model, "--steps", "2", "--device", "cpu", "--offload", offload)
        ran = run_ttv("sample", PROMPT, *words, "-o", out)
        assert ran.code == 0, ran.stderr
        made[offload] = out.read_bytes()
    assert made["none"] == made["disk"]
    # How it was run is not part of what it shows: with other memory there is nothing to do.
    hashes = [read_sidecar(tmp_path / f"{o}.mp4")["settings_hash"] for o in ("none", "disk")]
    assert hashes[0] == hashes[1]


@pytest.fixture(scope="module")
def image_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sizes for image-to-video, with `first.png` beside it; read-only."""
    out = tmp_path_factory.mktemp("image") / "model"
    shapes = {**SHAPES, "transformer": {**SHAPES["transformer"], "in_channels": 8}}
    run(BenchModelConfig(out=out, shapes=shapes))
    Image.new("RGB", (32, 32), "red").save(out.parent / "first.png")
    return out


@pytest.mark.parametrize("offload", ["none", "disk"])
def test_no_network_is_loaded_before_the_one_that_ran_is_gone(
    offload: str, image_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    loaded: list[weakref.ref[torch.nn.Module]] = []
    original = components.without_data

    def watched(folder: Path, component: str) -> Any:
        assert not [ref for ref in loaded if ref() is not None], f"{order[-1]} is still there"
        network, weights = original(folder, component)
        loaded.append(weakref.ref(network))
        order.append(component)
        return network, weights

    monkeypatch.setattr(components, "check_model", lambda folder: None)
    monkeypatch.setattr(components, "without_data", watched)
    words = ["--model", image_model, "--steps", "2", "--frames", "9", "--device", "cpu"]
    words += ["--offload", offload, "--image", image_model.parent / "first.png"]
    ran = run_ttv("sample", PROMPT, *words, "-o", tmp_path / "out.mp4")
    assert ran.code == 0, ran.stderr
    assert order == ["text_encoder", "vae", "transformer", "vae"]


def test_frames_go_to_the_video_encoder_before_the_next_latents_are_decoded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(model, dtype="fp32")
    vae: Any = components.load(model, "vae")
    decoded: list[int] = []
    vae.decoder.register_forward_pre_hook(lambda _, given: decoded.append(given[0].shape[2]))
    monkeypatch.setattr(generate, "load_vae", lambda request: vae)
    taken: list[tuple[int, int]] = []

    def take(path: Path, frames: Iterable[np.ndarray], fps: int, *, crf: int) -> None:
        taken.extend((number, sum(decoded)) for number, _ in enumerate(frames, start=1))

    monkeypatch.setattr(generate, "write_video", take)
    latents = torch.randn(4, 13, 2, 2, generator=torch.Generator().manual_seed(0))
    generate.decode_to_video(asked, latents, tmp_path / "o.mp4", SILENT, 4)
    assert decoded == [3, 2, 2, 2, 2, 2]
    # frames 1 to 9 are of the first three latents, and two more make eight
    assert taken == [(n, 3 if n <= 9 else 3 + 2 * -(-(n - 9) // 8)) for n in range(1, 50)]


@pytest.mark.parametrize(("resident", "place"), [(1, "disk"), (3, "disk"), (4, "none")])
def test_as_many_blocks_stay_as_the_plan_says(
    resident: int, place: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(model)
    planned = plan_memory(asked)
    stage = dataclasses.replace(planned.transformer, resident=resident, offload=place)
    planned = dataclasses.replace(planned, transformer=stage)
    monkeypatch.setattr(offloading, "check_memory", lambda *_: planned)
    network: Any = offloading.load_denoiser(asked, torch.device("cpu")).network
    streamed = [isinstance(block, StreamedBlock) for block in network.transformer_blocks]
    assert streamed == [False] * resident + [True] * (4 - resident)


def test_a_smaller_limit_keeps_fewer_blocks_resident(model: Path, tmp_path: Path) -> None:
    large = {**SHAPES, "transformer": {**SHAPES["transformer"], "num_layers": 40}}
    run(BenchModelConfig(out=tmp_path / "model", shapes=large))
    whole = plan_memory(request(tmp_path / "model"))
    assert whole.transformer.resident == 40
    block = whole.transformer.weights // 40
    kept = []
    for less in (0, 5, 10, 20):
        limit = whole.runtime + whole.transformer.peak - less * block
        words = ("--model", tmp_path / "model", "--device", "cpu", "--vram-limit", str(limit))
        ran = run_ttv("sample", PROMPT, *words, "-o", tmp_path / "o.mp4", "--dry-run", "--json")
        assert ran.code == 0, ran.stderr
        plan = ran.json["plan"]
        assert plan["bytes"]["peak"] <= plan["bytes"]["may be used"] == limit
        kept.append(plan["items"]["run transformer"].partition(";")[0])
    assert kept[0] == "all weights resident"
    counts = [int(text.partition(" of ")[0]) for text in kept[1:]]
    assert 40 > counts[0] > counts[1] > counts[2] > 0
    assert all(text.endswith("blocks resident, the others on disk") for text in kept[1:])


def test_the_plan_lists_bytes_by_class_and_the_time(tiny_data: TinyData, tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    words = ("--model", tiny_data.model, "--device", "cpu", "--vram-limit", "8GiB")
    plan = run_ttv("sample", PROMPT, *words, "-o", out, "--dry-run", "--json").json["plan"]
    assert {
        *("text encoder weights", "text encoder activations"),
        *("transformer weights", "transformer activations"),
        *("VAE weights", "VAE activations", "VAE caches"),
        "peak",
    } <= set(plan["bytes"])
    assert plan["bytes"]["may be used"] == 8 * 2**30
    assert plan["eta_seconds"] > 0
    assert "TFLOP" in plan["items"]["time from"]
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_ends_with_4_and_the_option_that_helps(tmp_path: Path) -> None:
    words = ("--size", "1280x768", "--device", "cpu", "--dtype", "bf16", "--vram-limit", "2GiB")
    ran = run_ttv("sample", PROMPT, *words, "-o", tmp_path / "o.mp4", "--dry-run")
    assert ran.code == 4
    assert "of memory, 2.0 GiB may be used" in ran.stderr
    fix = ran.stderr.partition("fix:")[2].split()
    assert fix == ["--set", "vae_tiling=true"]
    settings: dict[str, Any] = {"size": "1280x768", "dtype": "bf16", "vram_limit": "2GiB"}
    with pytest.raises(WouldNotFit):
        check_memory(request("tiny", **settings))
    assert plan_memory(request("tiny", **settings, vae_tiling=True)).fits


def test_guidance_is_counted_as_a_second_row(model: Path) -> None:
    with_guidance, without = (request(model, guidance=scale) for scale in (6.0, 1.0))
    two, one = (plan_memory(asked).transformer.activations for asked in (with_guidance, without))
    assert [memory_plan.clip_of(asked).rows for asked in (with_guidance, without)] == [2, 1]
    assert two > one
    assert memory_plan.clip_of(without, videos=3).rows == 3


def test_weights_are_counted_in_the_dtype_they_will_have(model: Path) -> None:
    sizes = [
        plan_memory(request(model, dtype=dtype, offload="none")).transformer.weights
        for dtype in ("bf16", "fp32")
    ]
    on_disk = sum(
        i.elements for i in model_folder.open_weights(model, "transformer").infos.values()
    )
    assert sizes == [2 * on_disk, 4 * on_disk]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("22GiB", 22 * 2**30),
        ("22 gib", 22 * 2**30),
        ("22G", 22 * 2**30),
        ("22GB", 22 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("500MB", 500 * 10**6),
        ("4096", 4096),
        ("1e9", 10**9),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["much", "-1GiB", "0", "22XB", "1.2.3G"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--vram-limit must be a size of memory"):
        SampleConfig(prompt=PROMPT, vram_limit=text)


def test_a_picture_too_large_to_decode_is_told_of_tiles(model: Path) -> None:
    asked = request(model, size="1360x768")
    whole, tiled = (
        plan_memory(request(model, size="1360x768", vae_tiling=tiling)) for tiling in (False, True)
    )
    assert tiled.peak < whole.peak == whole.runtime + whole.vae.peak
    limit = str((tiled.peak + whole.peak) // 2)
    with pytest.raises(WouldNotFit, match="the VAE needs") as refused:
        check_memory(request(model, size="1360x768", vram_limit=limit))
    assert refused.value.fix == "--set vae_tiling=true"
    check_memory(request(model, size="1360x768", vram_limit=limit, vae_tiling=True))
    # It changes pixels, so it belongs to what a video is.
    assert asked.identity() != request(model, size="1360x768", vae_tiling=True).identity()


def test_decoding_in_tiles_gives_the_pixels_of_the_tiled_vae(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = Tiling(height=16, width=16, overlap_height=0.5, overlap_width=0.5)
    monkeypatch.setattr(generate, "Tiling", lambda: tiles)
    asked = request(model, size="48x32", vae_tiling=True)
    latents = torch.randn(4, 13, 4, 6, generator=torch.Generator().manual_seed(0))
    frames = np.stack(list(generate.decode_frames(asked, latents, SILENT)))
    vae: Any = components.load(model, "vae", dtype=asked.config.dtype)
    batch = latents[None].to(DTYPES[asked.config.dtype])
    with torch.inference_mode():
        tiled, whole = tiled_decode(vae, batch, tiles), vae.decode(batch)

    def shown(pixels: torch.Tensor) -> np.ndarray:
        return generate._to_bytes(pixels[0])

    assert np.array_equal(frames, shown(tiled))
    assert not np.array_equal(frames, shown(whole))


def test_a_random_model_never_mixes_with_another_one(model: Path) -> None:
    with pytest.raises(UsageError, match="holds another transformer"):
        run(BenchModelConfig(out=model, ssm="ttt_linear", shapes=SHAPES))
    before = model_folder.component_hash(model, "transformer")
    run(BenchModelConfig(out=model, ssm="ttt_mlp", shapes=SHAPES))
    assert model_folder.component_hash(model, "transformer") == before


def test_a_random_model_is_refused_before_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WouldNotFit, match="1,000 are free"):
        run(BenchModelConfig(out=tmp_path / "model", shapes=SHAPES))
    assert not (tmp_path / "model").exists()


def test_the_plan_of_a_random_model_is_its_size_on_disk(model: Path, tmp_path: Path) -> None:
    planned = plan(BenchModelConfig(out=tmp_path / "new", ssm="ttt_mlp", shapes=SHAPES))
    infos = [
        info
        for name in ("transformer", "vae", "text_encoder")
        for info in model_folder.open_weights(model, name).infos.values()
    ]
    assert planned.bytes["disk"] == sum(2 * math.prod(info.shape) for info in infos)


def test_an_unknown_layer_type_is_one_clear_error() -> None:
    result = run_ttv("bench", "model", "-o", "x", "--ssm", "mamba")
    assert result.code == 2
    assert "ssm must be one of" in result.stderr
    assert "bug" not in result.stderr


def test_without_a_limit_a_tenth_of_a_card_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a display, and what lies between pieces of memory."""
    card = SimpleNamespace(total_memory=1000)
    monkeypatch.setattr("ttvcli.core.device.pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(memory_plan, "_gpu_memory", memory_plan._gpu_memory.__wrapped__)
    limits = limits_of(SampleConfig(prompt=PROMPT, device="cuda"))
    assert (limits.gpu, limits.device) == (True, 900)
    assert limits_of(SampleConfig(prompt=PROMPT, device="cuda", vram_limit="950B")).device == 950
