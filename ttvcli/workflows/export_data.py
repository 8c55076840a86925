"""Latents and text embeddings as the dataset of TTT-Video, and that as ours.

Theirs: a JSONL with `vid_emb`, the path of a `.pt` with mean and log-variance `[T, 2C, H, W]` in
bf16, and `text_chunk_emb`, the paths of one `.pt` `[L, D]` for each 3 s segment; paths are relative
to the JSONL or absolute. Ours: see `docs/formats.md`. Both hold unscaled latents.

Shape legend: C latent channels, T latent frames, H W latent size, L tokens, D text width.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttvcli.artifacts.atomic import json_text, write_text
from ttvcli.artifacts.embeddings import load_embeddings
from ttvcli.artifacts.latents import load_latents
from ttvcli.artifacts.manifest import Record, manifest_path, read_manifest
from ttvcli.artifacts.model_folder import hash_of_files
from ttvcli.artifacts.torch_file import write_torch
from ttvcli.errors import ArtifactError, counted
from ttvcli.workflows.export import ExportConfig, Job
from ttvcli.workflows.export_import import DatasetImport
from ttvcli.workflows.step import Progress

DATASET = "dataset.jsonl"


def from_public(config: ExportConfig) -> Job:
    """Check a public dataset and plan our folders `latents/` and `text/`."""
    found = DatasetImport.check(config)
    return Job(
        items=[("clips", len(found.clips)), ("model", str(found.model))],
        size=sum(path.stat().st_size for path in found.files),
        identity=found.identity(),
        write=lambda folder, progress: found.write(folder, progress),
    )


def to_public(config: ExportConfig) -> Job:
    """Check latents, and the text that belongs to them, and plan a public dataset.

    Raises:
        ArtifactError: no clips, or clips without text.
    """
    latents = Path(config.source)
    records = [record for record in read_manifest(latents) if record.get("keep", True)]
    if not records:
        raise ArtifactError("no clips to export", where=str(latents))
    texts = _texts(config, records)
    manifests = [manifest_path(latents)]
    files = [latents / record["path"] for record in records]
    if config.text is not None:
        manifests.append(manifest_path(config.text))
        files += [config.text / texts[record["id"]]["path"] for record in records]
    lost = [file for file in files if not file.is_file()]
    if lost:
        what = f"{counted(len(lost), 'missing file')}, such as {lost[0]}"
        raise ArtifactError(what, where=str(latents))

    def write(folder: Path, progress: Progress) -> None:
        progress.start("exporting", total=len(records), unit="clips")
        lines = []
        for record in records:
            lines.append(_write_clip(config, folder, record, texts.get(record["id"])))
            progress.advance()
        write_text(folder / DATASET, "".join(json_text(line) + "\n" for line in lines))
        progress.finish()

    return Job(
        items=[("clips", len(records)), ("text", str(config.text or "none"))],
        size=sum(file.stat().st_size for file in files),
        identity={"format": "ttt-video", "source": hash_of_files(manifests)},
        write=write,
        warnings=[]
        if config.text
        else ["without --text the dataset lists no text_chunk_emb, which training needs"],
    )


def _texts(config: ExportConfig, records: list[Record]) -> dict[str, Record]:
    if config.text is None:
        return {}
    texts = {record["id"]: record for record in read_manifest(config.text)}
    missing = [record["id"] for record in records if record["id"] not in texts]
    if missing:
        raise ArtifactError(
            f"{counted(len(missing), 'clip')} without a text embedding, such as {missing[0]}",
            where=str(config.text),
            fix=f"ttv embed-text {config.source} --out {config.text}",
        )
    return texts


def _write_clip(
    config: ExportConfig, folder: Path, record: Record, text: Record | None
) -> dict[str, Any]:
    """Write the `.pt` files of a clip; returns its line of the JSONL."""
    name = record["id"]
    mean, logvar, _ = load_latents(Path(config.source) / record["path"])
    video = f"latents/{name}.pt"
    write_torch(folder / video, public_latents(mean, logvar))
    line: dict[str, Any] = {"vid_emb": video, "text_chunk_emb": []}
    if text is not None and config.text is not None:
        embeddings, _, _ = load_embeddings(config.text / text["path"])
        for number, embedding in enumerate(embeddings):
            path = f"text/{name}_{number:02d}_txt_emb.pt"
            write_torch(folder / path, embedding.clone())
            line["text_chunk_emb"].append(path)
    return line


def public_latents(mean: Tensor, logvar: Tensor) -> Tensor:
    """Mean and log-variance `[C, T, H, W]` as the public `[T, 2C, H, W]` bf16."""
    return torch.cat([mean, logvar]).transpose(0, 1).to(torch.bfloat16).contiguous()
