"""`embed-text`: what it writes, each text once, and how it resumes."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import write_text_encoder
from step_outputs import snapshot

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.embeddings import load_embeddings
from ttvcli.artifacts.manifest import read_manifest
from ttvcli.errors import ArtifactError, UsageError, WouldNotFit
from ttvcli.workflows import components, text_encoders, text_store
from ttvcli.workflows.embed_text import EmbedTextConfig, plan, run
from ttvcli.workflows.text_sources import find_texts, prompts_of

CLIPS: list[dict[str, Any]] = [
    {"id": "c1", "path": "c1.safetensors", "segments": [{"caption": "a red circle"}], "extra": 7},
    {"id": "c2", "path": "c2.safetensors", "segments": [{"caption": "a blue square"}]},
    {
        "id": "c3",
        "path": "c3.safetensors",
        "segments": [
            {"caption": "a red circle", "scene_start": True},
            {"caption": "a red circle", "scene_start": False},
            {"caption": "two green stars bounce", "scene_start": True},
        ],
    },
    {"id": "c4", "path": "c4.safetensors", "segments": [{"caption": ""}]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_encoder(tmp_path_factory.mktemp("model"))


def write_clips(folder: Path, records: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("latents"), CLIPS)


def config(source: Path | str, out: Path, model: Path, **changes: Any) -> EmbedTextConfig:
    return EmbedTextConfig(source=str(source), out=out, model=str(model), device="cpu", **changes)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, latents: Path, model: Path) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "text"
    result = run(config(latents, out, model))
    assert (result.clips, result.embedded, result.failed) == (4, 4, [])
    return out


class Counted:
    """Loads the real encoder and counts what it is asked for."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.texts: Counter[str] = Counter()
        self.stop_after = stop_after

    def __call__(self, job: Any) -> Any:
        real = text_encoders.load(job)

        def encode(texts: Any) -> Any:
            if self.stop_after is not None and sum(self.texts.values()) >= self.stop_after:
                raise KeyboardInterrupt
            self.texts.update(texts)
            return real(texts)

        return encode


def test_embeddings_are_those_of_the_model(embedded: Path, model: Path) -> None:
    encoder: Any = components.load(model, "text_encoder")
    tokenizer = components.load_tokenizer(model)
    embeddings, lengths, about = load_embeddings(embedded / "c1.safetensors")
    with torch.inference_mode():
        expected = encoder(torch.tensor([tokenizer.encode("a red circle", 24)]))
    assert torch.equal(embeddings, expected.bfloat16())
    assert lengths.tolist() == [tokenizer.count("a red circle")]
    assert about["captions"] == ["a red circle"]
    assert about["encoder_hash"] == model_folder.component_hash(model, "text_encoder")


def test_each_segment_has_its_row_with_scene_changes_marked(embedded: Path) -> None:
    embeddings, lengths, about = load_embeddings(embedded / "c3.safetensors")
    assert embeddings.shape == (3, 24, 16)
    assert lengths.shape == (3,)
    assert about["captions"] == [
        "a red circle",
        "a red circle <end_scene>",
        "<start_scene> two green stars bounce",
    ]
    alone, _, _ = load_embeddings(embedded / "c1.safetensors")
    assert torch.equal(embeddings[0], alone[0])
    assert not torch.equal(embeddings[1], alone[0])


def test_the_empty_prompt_is_always_there(embedded: Path) -> None:
    empty, lengths, about = load_embeddings(embedded / "empty.safetensors")
    assert (about["captions"], lengths.tolist()) == ([""], [1])
    without, _, _ = load_embeddings(embedded / "c4.safetensors")
    assert torch.equal(empty, without)


def test_the_manifest_keeps_order_and_unknown_fields(embedded: Path) -> None:
    records = read_manifest(embedded)
    assert [record["id"] for record in records] == ["c1", "c2", "c3", "c4"]
    assert records[0]["extra"] == 7
    assert all((embedded / record["path"]).is_file() for record in records)


def test_each_distinct_text_is_encoded_once(tmp_path: Path, latents: Path, model: Path) -> None:
    counted = Counted()
    run(config(latents, tmp_path / "text", model), load_encoder=counted)
    assert set(counted.texts.values()) == {1}
    assert len(counted.texts) == 5


def test_a_small_memory_changes_no_byte_and_encodes_nothing_twice(
    tmp_path: Path, embedded: Path, latents: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_store, "_MEMORY_BYTES", 1)
    counted = Counted()
    run(config(latents, tmp_path / "text", model), load_encoder=counted)
    assert set(counted.texts.values()) == {1}
    assert snapshot(tmp_path / "text") == snapshot(embedded)


def test_a_second_run_changes_nothing_and_loads_no_weights(
    embedded: Path, latents: Path, model: Path
) -> None:
    def refuse(job: Any) -> Any:
        raise AssertionError("weights were loaded")

    before = snapshot(embedded)
    assert run(config(latents, embedded, model), load_encoder=refuse).embedded == 0
    assert snapshot(embedded) == before


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_run_stopped_anywhere_ends_with_the_same_bytes(
    tmp_path: Path, embedded: Path, latents: Path, model: Path, after: int
) -> None:
    out = tmp_path / "text"
    with pytest.raises(KeyboardInterrupt):
        run(config(latents, out, model), load_encoder=Counted(stop_after=after))
    run(config(latents, out, model))
    assert snapshot(out) == snapshot(embedded)


def test_a_changed_caption_is_embedded_again_and_nothing_else(
    tmp_path: Path, latents: Path, model: Path
) -> None:
    changed = [dict(clip) for clip in CLIPS]
    changed[1] = {**changed[1], "segments": [{"caption": "a blue disc"}]}
    out = tmp_path / "text"
    run(config(latents, out, model))
    source = write_clips(tmp_path / "latents", changed)
    assert run(config(source, out, model)).embedded == 1
    run(config(source, tmp_path / "fresh", model))
    assert snapshot(out) == snapshot(tmp_path / "fresh")


def test_a_change_interrupted_halfway_leaves_no_line_of_another_file(
    tmp_path: Path, latents: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "text"
    run(config(latents, out, model))
    changed = [{**CLIPS[0], "segments": [{"caption": "a green star"}]}, *CLIPS[1:]]
    source = write_clips(tmp_path / "latents", changed)

    def die(self: Any, record: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ttvcli.workflows.output_folder.OutputFolder.add", die)
        with pytest.raises(KeyboardInterrupt):
            run(config(source, out, model))
    run(config(source, out, model))
    run(config(source, tmp_path / "fresh", model))
    assert snapshot(out) == snapshot(tmp_path / "fresh")


def test_other_settings_or_weights_are_refused_unless_forced(
    tmp_path: Path, embedded: Path, latents: Path, model: Path
) -> None:
    out = tmp_path / "text"
    shutil.copytree(embedded, out)
    other = write_text_encoder(tmp_path / "other", seed=1)
    for changes in ({"max_tokens": 12}, {"model": str(other)}, {"dtype": "bf16"}):
        asked = EmbedTextConfig(
            **{"source": str(latents), "out": out, "model": str(model), "device": "cpu", **changes}
        )
        with pytest.raises(UsageError, match="other settings"):
            run(asked)
        if "model" not in changes:  # a plan reads no weights
            with pytest.raises(UsageError, match="other settings"):
                plan(asked)
    run(config(latents, out, model, max_tokens=12, force=True))
    assert load_embeddings(out / "c1.safetensors")[0].shape == (1, 12, 16)


def test_texts_over_the_budget_are_cut_counted_and_listed(tmp_path: Path, model: Path) -> None:
    long = "a red circle moves right " * 20
    source = write_clips(tmp_path / "latents", [{"id": "x", "segments": [{"caption": long}]}])
    result = run(config(source, tmp_path / "text", model))
    assert result.truncated == 1
    report = json.loads((tmp_path / "text" / "report.json").read_text())
    assert report["clips_over_budget"] == ["x"]
    _, lengths, _ = load_embeddings(tmp_path / "text" / "x.safetensors")
    assert lengths.tolist() == [24]


def test_the_plan_counts_and_foretells_the_bytes(
    tmp_path: Path, embedded: Path, latents: Path, model: Path
) -> None:
    found = plan(config(latents, tmp_path / "text", model))
    items = dict(found.items)
    assert (items["clips"], items["segments"], items["distinct texts"]) == (4, 6, 5)
    real = sum(path.stat().st_size for path in embedded.glob("*.safetensors"))
    assert real == pytest.approx(found.bytes["disk"], rel=0.5)
    assert not (tmp_path / "text").exists()


def test_a_list_of_prompts_is_a_source(tmp_path: Path, model: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfa red circle\r\n\r\na red circle\na dog\n")
    clips = find_texts(tmp_path / "prompts.txt")
    assert [clip.prompts for clip in clips] == [["a red circle"], ["a dog"]]
    assert run(config(tmp_path / "prompts.txt", tmp_path / "text", model)).clips == 2


@pytest.mark.parametrize(
    "records",
    [[], [{"segments": []}], [{"id": "../x"}], [{"id": "a"}, {"id": "a"}], [{"id": "empty"}]],
    ids=["nothing", "no id", "a path as id", "one id twice", "a reserved id"],
)
def test_unusable_manifests_are_refused(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    with pytest.raises(ArtifactError):
        find_texts(write_clips(tmp_path / "latents", records))


def test_the_first_segment_begins_no_new_scene() -> None:
    segments = [{"caption": "a", "scene_start": True}, {"caption": None}]
    assert prompts_of({"segments": segments}) == ["a", ""]
    assert prompts_of({"caption": "  whole\nclip "}) == ["whole clip"]


def test_the_output_may_not_be_the_latents(latents: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="among the latents"):
        run(config(latents, latents, model))


def test_a_model_without_text_encoder_is_refused(tmp_path: Path, latents: Path) -> None:
    (tmp_path / "model" / "vae").mkdir(parents=True)
    (tmp_path / "model" / "vae" / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="text_encoder"):
        run(config(latents, tmp_path / "text", tmp_path / "model"))


def test_too_little_disk_is_said_before_any_work(
    tmp_path: Path, embedded: Path, latents: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    loads = Counted()
    with pytest.raises(WouldNotFit, match="1,000 are free") as caught:
        run(config(latents, tmp_path / "text", model), load_encoder=loads)
    assert "--limit" in caught.value.fix
    (needed,) = plan(config(latents, tmp_path / "text", model)).bytes.values()
    assert f"about {needed:,} bytes and 16,777,216 are to stay free" in caught.value.what
    assert not loads.texts
    assert not list((tmp_path / "text").glob("*.safetensors"))
    shutil.copytree(embedded, tmp_path / "done")
    assert run(config(latents, tmp_path / "done", model)).embedded == 0  # nothing to write


def test_texts_of_finished_clips_are_not_encoded_again(
    tmp_path: Path, latents: Path, model: Path
) -> None:
    out = tmp_path / "text"
    run(config(latents, out, model))
    more = [*CLIPS, {"id": "c5", "segments": [{"caption": "a blue square"}]}]
    source = write_clips(tmp_path / "latents", more)
    counted = Counted()
    assert run(config(source, out, model), load_encoder=counted).embedded == 1
    assert not counted.texts
    run(config(source, tmp_path / "fresh", model))
    assert snapshot(out) == snapshot(tmp_path / "fresh")


def test_batches_change_no_byte(tmp_path: Path, embedded: Path, latents: Path, model: Path) -> None:
    run(config(latents, tmp_path / "text", model, batch=4))
    assert snapshot(tmp_path / "text") == snapshot(embedded)


def test_a_batch_is_as_large_as_no_bit_changes() -> None:
    """A forward pass whose sums differ from five texts on, in one place of the batch."""

    def forward(ids: torch.Tensor) -> torch.Tensor:
        hidden = ids[..., None].float() / 3
        if len(ids) > 4:
            hidden[3, -1] = torch.nextafter(hidden[3, -1], torch.tensor(9e9))
        return hidden

    def found(wanted: int) -> int:
        return text_encoders.largest_batch(forward, wanted, 7, 100, torch.device("cpu"))

    assert [found(16), found(4), found(1)] == [4, 4, 1]


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_merge_to_the_bytes_of_one_run(
    tmp_path: Path, embedded: Path, latents: Path, model: Path, parts: int
) -> None:
    out = tmp_path / "text"
    done = 0
    for index in range(parts, 0, -1):
        assert not (out / "manifest.jsonl").exists()
        done += run(config(latents, out, model, shard=f"{index}/{parts}")).clips
    assert done == len(CLIPS)
    assert without_locks(out) == without_locks(embedded)


def test_a_part_with_an_old_line_does_not_hide_a_new_caption(
    tmp_path: Path, latents: Path, model: Path
) -> None:
    out = tmp_path / "text"
    run(config(latents, out, model, shard="1/2"))
    changed = [{**clip, "segments": [{"caption": "two green stars"}]} for clip in CLIPS]
    source = write_clips(tmp_path / "latents", changed)
    for part in ("1/2", "2/2"):
        run(config(source, out, model, shard=part))
    run(config(source, tmp_path / "fresh", model))
    assert without_locks(out) == without_locks(tmp_path / "fresh")


def without_locks(folder: Path) -> dict[str, bytes]:
    return {k: v for k, v in snapshot(folder).items() if not k.startswith(".lock")}


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of two layers with a tokenizer of single letters, as transformers writes them."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    transformers.CLIPTextModel(sizes).save_pretrained(folder)
    return folder


def test_clip_is_an_encoder_too(tmp_path: Path, latents: Path, clip_model: Path) -> None:
    import transformers

    asked = config(latents, tmp_path / "clip", clip_model, encoder="clip")
    assert dict(plan(asked).items)["tokens a segment"] == 20
    assert run(asked).clips == 4
    embeddings, lengths, about = load_embeddings(tmp_path / "clip" / "c1.safetensors")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(clip_model)
    network = transformers.CLIPTextModel.from_pretrained(clip_model).eval()
    ids = tokenizer(
        ["a red circle"], padding="max_length", truncation=True, max_length=20, return_tensors="pt"
    ).input_ids
    with torch.inference_mode():
        expected = network(ids).last_hidden_state.bfloat16()
    assert torch.equal(embeddings, expected)
    assert lengths.tolist() == [len("aredcircle") + 2]
    assert about["encoder"] == "CLIPTextModel"
    with pytest.raises(UsageError, match="20 positions"):
        run(config(latents, tmp_path / "x", clip_model, encoder="clip", max_tokens=21))


def test_a_folder_without_clip_is_refused(tmp_path: Path, latents: Path, model: Path) -> None:
    with pytest.raises(ArtifactError, match="expected clip"):
        run(config(latents, tmp_path / "text", model, encoder="clip"))
    with pytest.raises(ArtifactError, match="folder with a CLIP, and 'tiny' is none"):
        run(config(latents, tmp_path / "text", Path("tiny"), encoder="clip"))
