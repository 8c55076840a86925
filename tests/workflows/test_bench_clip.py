"""The row `clip` of `ttv bench sample`: a whole clip of a folder, each side a process."""

import json
from pathlib import Path
from typing import Any

import pytest

from ttvcli.errors import ArtifactError, UsageError, WorkFailed
from ttvcli.workflows import bench_clip, bench_model
from ttvcli.workflows.bench_clip import Clip
from ttvcli.workflows.bench_model import BenchModelConfig
from ttvcli.workflows.bench_sample import BenchSampleConfig, plan, run

pytest.importorskip("diffusers")

SHAPES = {
    "transformer": {
        "num_attention_heads": 2,
        "num_layers": 2,
        "text_embed_dim": 32,
        "time_embed_dim": 32,
    },
    "vae": {"block_out_channels": (8, 16, 16, 16), "norm_num_groups": 4, "layers_per_block": 1},
    "text_encoder": {"d_model": 32, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2},
}
TAKEN = {"seconds": 2.0, "step_seconds": 0.5, "peak_rss": 2**30, "peak_vram": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "small"
    bench_model.run(BenchModelConfig(out=out, dtype="fp32", shapes=SHAPES))
    return out


def settings(folder: Path, **changes: Any) -> BenchSampleConfig:
    usual = {"size": "64x64", "frames": 9, "steps": 4, "repeats": 1, "device": "cpu", "threads": 1}
    return BenchSampleConfig(model=str(folder), **{**usual, **changes})


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_both_sides_make_the_same_clip_of_a_folder(
    folder: Path, tmp_path: Path, dtype: str
) -> None:
    out = tmp_path / "rows.jsonl"
    result = run(settings(folder, dtypes=dtype, out=out))
    (row,) = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row] == result.rows
    assert row["relative_error"] < {"fp32": 1e-5, "bf16": 0.1}[dtype]
    assert (row["row"], row["shape"], row["dtype"]) == ("clip", "9x64x64, 4 steps", dtype)
    for prefix in ("", "against_"):
        assert 0 < row[prefix + "step_seconds"] < row[prefix + "seconds"]
        assert row[prefix + "peak_rss"] > 100e6
        assert row[prefix + "peak_vram"] is None
    assert row["ratio"] == pytest.approx(row["against_seconds"] / row["seconds"])
    ((_, text),) = result.table
    assert "GiB of memory" in text


def test_memory_that_does_not_suffice_for_diffusers_is_a_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"ttv": TAKEN, "diffusers": {"not_run": "OutOfMemoryError: CUDA out of memory"}}
    monkeypatch.setattr(bench_clip, "in_process", lambda side, clip: answers[side])
    result = run(settings(folder, repeats=2))
    (row,) = result.rows
    assert (row["seconds"], row["ratio"], row["relative_error"]) == (2.0, None, None)
    assert row["against_not_run"] == "OutOfMemoryError: CUDA out of memory"
    ((_, text),) = result.table
    assert text == "ttv 2.000 s, diffusers not run: OutOfMemoryError: CUDA out of memory"


def test_a_clip_that_ttv_cannot_make_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_clip, "in_process", lambda side, clip: {"not_run": "killed"})
    with pytest.raises(WorkFailed, match="ttv did not make the clip: killed"):
        run(settings(folder))


def test_a_side_that_ends_badly_says_why(folder: Path, tmp_path: Path) -> None:
    clip = Clip(str(folder), size="60x60", frames=9, steps=2, folder=str(tmp_path))
    found = bench_clip.in_process("ttv", clip)
    assert set(found) == {"not_run"}
    assert "60" in found["not_run"]


def test_the_plan_shows_the_clip_as_it_will_be_made(folder: Path) -> None:
    assert dict(plan(settings(folder)).items)["row clip auto"] == "9x64x64, 4 steps"
    whole = BenchSampleConfig(model=str(folder), device="cpu")
    assert dict(plan(whole).items)["row clip auto"] == "49x480x720, 50 steps"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": "clip"}, "the row clip and --model belong together"),
        ({"rows": "pipeline", "model": "5b"}, "the row clip and --model belong together"),
        ({"model": "5b", "steps": 1}, "steps must be at least 2"),
        ({"model": "5b", "vram_limit": "much"}, "--vram-limit must be a size of memory"),
    ],
)
def test_wrong_settings_of_a_clip_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BenchSampleConfig(**changes)


def test_a_folder_that_is_not_there_is_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises((ArtifactError, UsageError), match="nothing-here"):
        plan(settings(tmp_path / "nothing-here"))


def test_a_model_that_diffusers_cannot_have_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="diffusers knows no TTT layers and no segments"):
        plan(BenchSampleConfig(model="tiny", device="cpu"))
