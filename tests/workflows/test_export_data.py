"""`ttv export` of data: the dataset and the prompt files of TTT-Video, there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import TinyData

from ttvcli.artifacts.embeddings import EMPTY_NAME, load_embeddings
from ttvcli.artifacts.latents import load_latents
from ttvcli.artifacts.manifest import read_manifest
from ttvcli.artifacts.model_folder import component_hash
from ttvcli.artifacts.storyboard import read_storyboards
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.export import ExportConfig, kind_of, run
from ttvcli.workflows.training_data import LatentClips

PUBLIC = [
    [
        {"text": "a fox sits", "requires_scene_transition": False, "neg_text": "blur"},
        {"text": "it runs", "requires_scene_transition": True},
    ],
    [{"text": "a sea", "requires_scene_transition": False}],
]


def export(source: Path | str, out: Path, **settings: Any) -> Path:
    (path,) = run(ExportConfig(source=str(source), out=out, **settings)).paths
    return path


@pytest.fixture(scope="module")
def dataset(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("public") / "dataset"
    return export(tiny_data.latents, out, text=tiny_data.text)


def lines_of(dataset: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (dataset / "dataset.jsonl").read_text().splitlines()]


def test_latents_and_text_get_the_public_shapes(tiny_data: TinyData, dataset: Path) -> None:
    records, lines = read_manifest(tiny_data.latents), lines_of(dataset)
    texts = {record["id"]: record for record in read_manifest(tiny_data.text)}
    assert len(lines) == len(records)
    for record, line in zip(records, lines, strict=True):
        mean, logvar, _ = load_latents(tiny_data.latents / record["path"])
        video = torch.load(dataset / line["vid_emb"], weights_only=True)
        frames, channels = mean.shape[1], mean.shape[0]
        assert video.shape == (frames, 2 * channels, *mean.shape[2:])
        assert video.dtype == torch.bfloat16
        assert torch.equal(video[:, :channels].transpose(0, 1), mean)
        assert torch.equal(video[:, channels:].transpose(0, 1), logvar)
        embeddings, _, _ = load_embeddings(tiny_data.text / texts[record["id"]]["path"])
        assert len(line["text_chunk_emb"]) == len(embeddings) == 1
        text = torch.load(dataset / line["text_chunk_emb"][0], weights_only=True)
        assert torch.equal(text, embeddings[0])


def test_the_dataset_comes_back_and_can_be_trained_on(
    tiny_data: TinyData, dataset: Path, tmp_path: Path
) -> None:
    back = export(dataset / "dataset.jsonl", tmp_path / "back", base=str(tiny_data.model))
    for record in read_manifest(tiny_data.latents):
        before = load_latents(tiny_data.latents / record["path"])
        after = load_latents(back / "latents" / record["path"])
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])
        for key in ("fps", "width", "height", "frames"):
            assert before[2][key] == after[2][key]
    ours, theirs = (load_embeddings(f / EMPTY_NAME)[0] for f in (tiny_data.text, back / "text"))
    assert torch.equal(ours, theirs)
    clips = LatentClips(
        back / "latents",
        back / "text",
        scaling_factor=1.0,
        vae_hash=component_hash(tiny_data.model, "vae"),
        text_encoder_hash=component_hash(tiny_data.model, "text_encoder"),
    )
    assert clips.warnings == []
    batch = clips.batch([0, 1], torch.Generator().manual_seed(0))
    assert batch.latents.shape[:2] == (2, 13)


def test_a_dataset_that_does_not_fit_is_refused(
    tiny_data: TinyData, dataset: Path, tmp_path: Path
) -> None:
    base = str(tiny_data.model)
    with pytest.raises(UsageError, match="whose latents"):
        export(dataset / "dataset.jsonl", tmp_path / "a")
    line = lines_of(dataset)[0]
    paths = {
        "vid_emb": str(dataset / line["vid_emb"]),
        "text_chunk_emb": [str(dataset / line["text_chunk_emb"][0])],
    }
    broken = {
        "13 latent frames where 25 belong": {"text_chunk_emb": paths["text_chunk_emb"] * 2},
        "1 missing file": {"vid_emb": "nowhere.pt"},
        r"expected latents \[T, 8, H, W\]": {"vid_emb": paths["text_chunk_emb"][0]},
        "line 1 has no texts": {"text_chunk_emb": []},
    }
    for message, change in broken.items():
        (tmp_path / "d.jsonl").write_text(json.dumps({**paths, **change}) + "\n")
        with pytest.raises(ArtifactError, match=message):
            export(tmp_path / "d.jsonl", tmp_path / "b", base=base)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_prompt_files_go_there_and_back(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"public{suffix}"
    if suffix == ".json":
        source.write_text(json.dumps(PUBLIC))
    else:
        source.write_text("".join(json.dumps(video) + "\n" for video in PUBLIC))
    assert kind_of(str(source)) == "storyboard"
    ours = export(source, tmp_path / "ours.jsonl")
    assert read_storyboards(ours) == read_storyboards(source)
    assert json.loads(ours.read_text().splitlines()[0])["segments"][1]["scene_start"] is True
    back = export(ours, tmp_path / "back.json")
    assert json.loads(back.read_text()) == PUBLIC


def test_a_json_of_ours_takes_one_video_and_other_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "public.json").write_text(json.dumps(PUBLIC))
    with pytest.raises(UsageError, match="holds one video") as caught:
        export(tmp_path / "public.json", tmp_path / "ours.json")
    assert "ours.jsonl" in caught.value.fix
    (tmp_path / "one.json").write_text(json.dumps(PUBLIC[:1]))
    ours = export(tmp_path / "one.json", tmp_path / "ours.json")
    assert json.loads(ours.read_text())["seconds"] == 6
    export(tmp_path / "one.json", tmp_path / "ours.json")
    ours.write_text("{}")
    with pytest.raises(UsageError, match="another file"):
        export(tmp_path / "one.json", tmp_path / "ours.json")
    export(tmp_path / "one.json", tmp_path / "ours.json", force=True)
    assert json.loads(ours.read_text())["seconds"] == 6
