"""What a training step is fed: the right clips, frames, texts and posterior draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_ttv
from tiny_model import TinyData

from ttvcli.artifacts.embeddings import save_embeddings
from ttvcli.artifacts.latents import load_latents, save_latents
from ttvcli.artifacts.manifest import write_manifest
from ttvcli.core.video.encode import write_video
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.training_data import LatentClips, PixelClips, batch_indices, prefetch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write_clips(folder: Path, frames: list[int], *, vae: str = "v1", encoder: str = "e1") -> None:
    """Latents of random values, with texts that hold the number of their segment."""
    (folder / "latents").mkdir(parents=True)
    (folder / "text").mkdir()
    about = {"settings_hash": "", "vae": "", "fps": 16, "width": 16, "height": 16}
    records, texts = [], []
    for number, count in enumerate(frames):
        name = f"clip{number}"
        mean = torch.randn(4, count, 2, 2, generator=generator(number))
        logvar = torch.full_like(mean, -2.0)
        facts = {**about, "vae_hash": vae, "frames": 4 * count - 3, "source_sha256": ""}
        save_latents(folder / "latents" / f"{name}.safetensors", mean, logvar, facts)
        segments = max(1, -(-(count - 1) // 12))
        embedded = torch.arange(segments).float()[:, None, None].expand(segments, 5, 8)
        captions = [f"part {i}" for i in range(segments)]
        save_embeddings(
            folder / "text" / f"{name}.safetensors",
            embedded,
            torch.full((segments,), 5),
            {
                "settings_hash": "",
                "encoder": "",
                "encoder_hash": encoder,
                "max_tokens": 5,
                "captions": captions,
            },
        )
        record = {"id": name, "segments": [{"caption": caption} for caption in captions]}
        records.append({**record, "path": f"{name}.safetensors"})
        texts.append({**record, "path": f"{name}.safetensors"})
    write_manifest(folder / "latents" / "manifest.jsonl", records)
    write_manifest(folder / "text" / "manifest.jsonl", texts)


def clips(folder: Path, **changes: Any) -> LatentClips:
    values = {"scaling_factor": 2.0, "vae_hash": "v1", "text_encoder_hash": "e1", **changes}
    return LatentClips(folder / "latents", folder / "text", **values)


@pytest.mark.parametrize("room", [0, 2**20])
def test_latents_are_drawn_from_the_posterior_and_scaled(tmp_path: Path, room: int) -> None:
    write_clips(tmp_path, [13, 13])
    source = clips(tmp_path, cache_bytes=room)
    for _ in range(2):  # from disk, and from memory where there is room
        batch = source.batch([1, 0], generator(7))
        assert batch.latents.shape == (2, 13, 4, 2, 2)
        assert batch.text.shape == (2, 1, 5, 8)
        draws = generator(7)
        for place, number in enumerate((1, 0)):
            mean = torch.randn(4, 13, 2, 2, generator=generator(number)).bfloat16().float()
            noise = torch.randn(mean.shape, generator=draws)
            expected = 2.0 * (mean + np.exp(-1.0) * noise)
            assert torch.allclose(batch.latents[place].transpose(0, 1), expected, atol=1e-5)
    assert len(source.cache) == (2 if room else 0)


def test_memory_for_clips_is_limited(tmp_path: Path) -> None:
    write_clips(tmp_path, [13, 13, 13])
    source = clips(tmp_path, cache_bytes=2 * (2 * 13 * 16 + 5 * 8) * 2)
    source.batch([0, 1, 2], generator())
    assert len(source.cache) == 2


@pytest.mark.parametrize(("frames", "segments"), [(0, 3), (1, 1), (5, 1), (13, 1), (25, 2)])
def test_the_start_of_a_clip_comes_with_the_texts_of_its_segments(
    tmp_path: Path, frames: int, segments: int
) -> None:
    write_clips(tmp_path, [37])
    batch = clips(tmp_path, latent_frames=frames).batch([0], generator())
    assert batch.latents.shape[1] == (frames or 37)
    assert batch.text[0, :, 0, 0].tolist() == list(range(segments))


def test_segments_that_would_fall_elsewhere_than_in_the_video_are_refused(tmp_path: Path) -> None:
    write_clips(tmp_path, [37])
    with pytest.raises(ArtifactError, match="17 latent frames are not a multiple of 3 s"):
        clips(tmp_path, latent_frames=17).batch([0], generator())
    with pytest.raises(ArtifactError, match="has 37 latent frames, the run needs 73"):
        clips(tmp_path, latent_frames=73).batch([0], generator())


def test_clips_that_cannot_share_a_batch_are_refused(tmp_path: Path) -> None:
    write_clips(tmp_path, [13, 25])
    with pytest.raises(ArtifactError, match="cannot share a batch"):
        clips(tmp_path).batch([0, 1], generator())


@pytest.mark.parametrize("changes", [{"vae_hash": "v2"}, {"text_encoder_hash": "e2"}])
def test_a_clip_of_another_model_is_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    write_clips(tmp_path, [13])  # folders without a header: only the files can tell
    with pytest.raises(ArtifactError, match="stale"):
        clips(tmp_path, **changes).batch([0], generator())


def test_clips_without_text_are_refused_and_changed_captions_told(tmp_path: Path) -> None:
    write_clips(tmp_path, [13, 13])
    manifest = tmp_path / "text" / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text(lines[0].replace("part 0", "part zero") + "\n" + lines[1] + "\n")
    (warning,) = clips(tmp_path).warnings
    assert "1 clip with other captions" in warning
    assert "clip0" in warning
    manifest.write_text(lines[0] + "\n")
    with pytest.raises(ArtifactError, match="1 clip without a text embedding, such as clip1"):
        clips(tmp_path)


def test_texts_of_another_length_than_the_models_are_told(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    ran = run_ttv(
        *("embed-text", tiny_data.latents, "--out", tmp_path / "text", "--model", tiny_data.model),
        *("--set", "max_tokens=24", "--device", "cpu"),
    )
    assert ran.code == 0, ran.stderr
    words = (
        "train",
        "--data",
        tiny_data.latents,
        "--model",
        tiny_data.model,
        "--dry-run",
        "--json",
    )
    plan = run_ttv(*words, "--text", tmp_path / "text").json["plan"]
    assert "have 24 tokens, videos will be sampled with 19" in plan["items"]["warning"]
    assert "warning" not in run_ttv(*words, "--text", tiny_data.text).json["plan"]["items"]


def test_clips_marked_as_left_out_are_left_out(tmp_path: Path) -> None:
    write_clips(tmp_path, [13, 13])
    manifest = tmp_path / "latents" / "manifest.jsonl"
    manifest.write_text(
        manifest.read_text().replace('"id": "clip0",', '"id": "clip0", "keep": false,')
    )
    assert [record["id"] for record in clips(tmp_path).records] == ["clip1"]


def write_pixels(folder: Path, frames: list[int], told: list[int] | None = None) -> None:
    folder.mkdir()
    records = []
    for number, count in enumerate(frames):
        film = np.zeros((count, 16, 16, 3), np.uint8)
        film += np.arange(count, dtype=np.uint8)[:, None, None, None] * 8
        write_video(folder / f"{number}.mp4", film, 16, crf=0)
        size = {"width": 16, "height": 16, "frames": (told or frames)[number]}
        records.append({"id": str(number), "path": f"{number}.mp4", "sha256": "", **size})
    write_manifest(folder / "manifest.jsonl", records)


@pytest.mark.parametrize("room", [0, 2**20])
def test_pixels_are_cut_at_random_places_and_scaled(tmp_path: Path, room: int) -> None:
    write_pixels(tmp_path / "clips", [17])
    source = PixelClips(tmp_path / "clips", 9, room)
    starts = set()
    for seed in range(40):
        batch = source.batch([0], generator(seed))
        assert batch.shape == (1, 3, 9, 16, 16)
        levels = (batch[0, 0, :, 0, 0] + 1) * 127.5 / 8
        starts.add(round(float(levels[0])))
        assert torch.allclose(levels - levels[0], torch.arange(9.0), atol=0.5)
    assert starts == set(range(9))  # first and last place included


def test_videos_that_cannot_be_used_are_told_apart(tmp_path: Path) -> None:
    write_pixels(tmp_path / "short", [9, 17])
    with pytest.raises(ArtifactError, match="1 video shorter than clip_frames 17, such as 0"):
        PixelClips(tmp_path / "short", 17)
    write_pixels(tmp_path / "less", [9], told=[17])
    for room in (0, 2**20):
        with pytest.raises(ArtifactError, match="ends after 9 frames"):
            PixelClips(tmp_path / "less", 17, room).batch([0], generator())
    (tmp_path / "less" / "0.mp4").write_bytes(b"no video")
    with pytest.raises(ArtifactError, match="cannot be read"):
        PixelClips(tmp_path / "less", 17).batch([0], generator())
    write_manifest(tmp_path / "bare" / "manifest.jsonl", [{"id": "a", "path": "a.mp4"}])
    with pytest.raises(ArtifactError, match="does not say sha256, width, height, frames"):
        PixelClips(tmp_path / "bare", 9)


def test_every_clip_is_used_once_a_pass_in_an_order_of_its_own() -> None:
    stream = [index for step in range(15) for index in batch_indices(step, 4, 10, seed=3)]
    passes = [stream[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == 6
    assert batch_indices(7, 4, 10, seed=3) == stream[28:32]
    assert batch_indices(7, 4, 10, seed=4) != stream[28:32]
    assert len(batch_indices(0, 25, 10, seed=0)) == 25  # more than there are


def test_batches_are_made_ahead_in_order_and_errors_arrive() -> None:
    made: list[int] = []

    def make(step: int) -> int:
        if step == 6:
            raise ArtifactError("broken clip")
        made.append(step)
        return step * step

    batches = prefetch(make, 2, 9)
    assert [next(batches) for _ in range(4)] == [4, 9, 16, 25]
    with pytest.raises(ArtifactError, match="broken clip"):
        next(batches)
    assert made == [2, 3, 4, 5]
    endless = prefetch(make, 10, 1000)
    assert next(endless) == 100
    endless.close()  # the thread stops making more
    count = len(made)
    assert count <= 4 + 5


def test_windows_from_anywhere_lie_in_one_segment_and_bring_its_text(tmp_path: Path) -> None:
    write_clips(tmp_path, [37])
    whole, _, _ = load_latents(tmp_path / "latents" / "clip0.safetensors")
    source = clips(tmp_path, latent_frames=5, anywhere=True)
    seen = set()
    for seed in range(120):
        mean, _, text = source._window(*source._load(0), generator(seed))
        starts = [i for i in range(33) if torch.equal(whole[:, i : i + 5], mean)]
        assert len(starts) == 1
        segment = int(text[0, 0, 0])
        assert 12 * segment <= starts[0] <= 12 * segment + 8
        assert text.shape == (1, 5, 8)
        seen.add((segment, starts[0]))
    assert len(seen) > 22  # of 27
    assert source.batch([0, 0], generator()).latents.shape == (2, 5, 4, 2, 2)


@pytest.mark.parametrize("frames", [0, 14])
def test_windows_from_anywhere_fit_a_segment(tmp_path: Path, frames: int) -> None:
    write_clips(tmp_path, [37])
    with pytest.raises(UsageError, match="within a segment"):
        clips(tmp_path, latent_frames=frames, anywhere=True)
