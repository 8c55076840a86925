"""Storyboards as the prompt files of TTT-Video, and those as storyboards."""

from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import json_text
from ttvcli.artifacts.model_folder import hash_of_files
from ttvcli.artifacts.storyboard import Storyboard, read_storyboards
from ttvcli.errors import UsageError
from ttvcli.workflows.export import ExportConfig, Job
from ttvcli.workflows.output_file import check_output_file

PUBLIC_SEGMENTS = (1, 3, 6, 10, 21)  # 3, 9, 18, 30 and 63 s: the lengths it has settings for


def is_public(path: Path) -> bool:
    """Tell whether a file of storyboards is in the public form: videos are lists of segments."""
    text = path.read_text(encoding="utf-8-sig", errors="replace").lstrip()
    return path.suffix.lower() in (".json", ".jsonl") and text[:1] == "["


def prompts_job(config: ExportConfig, form: str) -> Job:
    """Read every storyboard of a file and plan the file to write.

    Raises:
        ArtifactError: a storyboard is broken.
        UsageError: the output is no `.json` or `.jsonl`, or a `.json` of ours with several videos.
    """
    boards = read_storyboards(config.source)
    suffix = config.out.suffix.lower()
    check_output_file(config.out, ".jsonl" if suffix == ".jsonl" else ".json", "--out")
    if form == "ttv" and suffix == ".json" and len(boards) > 1:
        raise UsageError(
            f"a .json storyboard holds one video, this file has {len(boards)}",
            where=str(config.out),
            fix=f"--out {config.out.with_suffix('.jsonl')}, with one video a line",
        )
    videos = [board.to_json() if form == "ttv" else public_video(board) for board in boards]
    if suffix == ".jsonl":
        text = "".join(json_text(video) + "\n" for video in videos)
    else:
        text = json_text(videos[0] if form == "ttv" else videos, indent=2) + "\n"
    odd = sorted({len(board.segments) for board in boards} - set(PUBLIC_SEGMENTS))
    warnings = [f"TTT-Video has no settings for {n} segments ({3 * n} s)" for n in odd]
    return Job(
        items=[("videos", len(boards)), ("segments", sum(len(b.segments) for b in boards))],
        size=len(text.encode()),
        identity={"format": form, "source": hash_of_files([Path(config.source)])},
        write=lambda *_: text.encode(),
        is_file=True,
        warnings=warnings if form == "ttt-video" else [],
    )


def public_video(board: Storyboard) -> list[dict[str, Any]]:
    """One video of a public prompt file."""
    return [
        {
            "text": segment.text,
            "requires_scene_transition": segment.scene_start,
            **({"neg_text": segment.negative} if segment.negative else {}),
        }
        for segment in board.segments
    ]
