"""The end of `embed-text`: one manifest and one report, from one run or from many parts."""

import json
from pathlib import Path
from typing import Any

from ttvcli.artifacts.embeddings import EMPTY_NAME, read_embeddings_metadata
from ttvcli.artifacts.schema import header, settings_hash
from ttvcli.errors import ArtifactError
from ttvcli.workflows.embed_job import Job
from ttvcli.workflows.output_folder import OutputFolder
from ttvcli.workflows.shards import merge_parts, names_hash
from ttvcli.workflows.text_sources import Texts, prompts_of


def items_hash(job: Job) -> str:
    """Return a hash of all clips of all parts, with their texts."""
    return names_hash(json.dumps([clip.id, clip.prompts]) for clip in job.clips)


def current(folder: OutputFolder, clip: Texts) -> dict[str, Any]:
    """Return the record of a finished clip with what its source says now."""
    old = folder.done[clip.id]
    own = {key: old[key] for key in ("path", "sha256", "lengths", "tokens_needed")}
    return {**clip.record, "id": clip.id, **own}


def is_sound(path: Path, prompts: list[str], settings: str) -> bool:
    """Tell whether a file is whole, and of these texts and settings (their hash)."""
    try:
        about = read_embeddings_metadata(path)
    except ArtifactError:
        return False
    return about.get("settings_hash") == settings and about.get("captions") == prompts


def make_report(job: Job, clips: list[Texts], records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of `report.json`."""
    limit = job.max_tokens
    prompts = [prompt for clip in clips for prompt in clip.prompts]
    return {
        **header("report", job.settings()),
        "clips": len(records),
        "segments": len(prompts),
        "distinct_texts": len(set(prompts)),
        "segments_without_caption": sum(not prompt for prompt in prompts),
        "segments_over_budget": sum(n > limit for r in records for n in r["tokens_needed"]),
        "clips_over_budget": [
            r["id"] for r in records if max(r["tokens_needed"], default=0) > limit
        ],
    }


def merge(job: Job) -> str:
    """Merge the parts if all of them have ended, and say so; see `shards.merge_parts`."""
    assert job.shard is not None
    out, settings = job.config.out, settings_hash(job.settings())

    def finish(reports: list[dict[str, Any]]) -> int | None:
        folder = OutputFolder(out)
        whole = is_sound(out / EMPTY_NAME, [""], settings) and all(
            prompts_of(folder.done.get(clip.id, {})) == clip.prompts
            and is_sound(out / f"{clip.id}.safetensors", clip.prompts, settings)
            for clip in job.clips
        )
        if not whole:
            return None
        records = [current(folder, clip) for clip in job.clips]
        folder.complete(records, make_report(job, job.clips, records))
        return len(records)

    return merge_parts(out, job.shard, items_hash(job), finish)
