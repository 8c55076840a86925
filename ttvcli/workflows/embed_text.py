"""Embed captions with the model's T5: one safetensors file a clip, one row of tokens a segment.

Each distinct text is encoded once, and its bytes are those it would have alone: sums in a matrix
product may depend on the batch, so texts share a batch only where that was seen to change no bit
(`text_encoders`). A run that was stopped and continued, or done in parts, gives the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts.atomic import sha256_file
from ttvcli.artifacts.embeddings import EMPTY_NAME, save_embeddings
from ttvcli.artifacts.schema import header, settings_hash
from ttvcli.errors import counted
from ttvcli.workflows import text_encoders
from ttvcli.workflows.embed_job import EmbedTextConfig, Job, bytes_of, plan, prepare
from ttvcli.workflows.embed_merge import (
    current,
    is_sound,
    items_hash,
    make_report,
    merge,
)
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.output_folder import OutputFolder
from ttvcli.workflows.shards import write_part_report, writing
from ttvcli.workflows.step import SILENT, PlainResult, Progress
from ttvcli.workflows.text_encoders import Encoder
from ttvcli.workflows.text_sources import Texts, prompts_of
from ttvcli.workflows.text_store import TextStore, groups

__all__ = ["EmbedTextConfig", "EmbedTextResult", "plan", "run"]

_SPARE_DISK = 16 << 20
_SHOWN = 3  # texts over the budget that are quoted


@dataclass(frozen=True)
class EmbedTextResult(PlainResult):
    """What a run did; `truncated` counts segments whose text was over the budget."""

    paths: list[Path]
    clips: int
    embedded: int
    truncated: int
    failed: list[dict[str, Any]]


def run(
    config: EmbedTextConfig,
    progress: Progress = SILENT,
    *,
    load_encoder: Callable[[Job], Encoder] | None = None,
) -> EmbedTextResult:
    """Embed the captions of every clip that is not done yet, and the empty prompt.

    Args:
        config: settings.
        progress: where to report.
        load_encoder: makes the function from texts to (embeddings `[L, D]`, tokens needed) of
            each; called only if there is something to embed.

    Raises:
        UsageError: the output was made with other settings, or another process writes there.
        ArtifactError: no captions, or the model's text encoder or tokenizer cannot be read.
        WouldNotFit: not enough disk.
    """
    job = prepare(config)
    settings = job.settings()
    made_from = {key: settings[key] for key in ("encoder_hash", "tokenizer_hash")}
    with writing(config.out, job.shard):
        folder = OutputFolder.open(
            config.out,
            header("embeddings", settings, made_from),
            force=config.force,
            shard=job.shard,
        )
        result = _Run(job, folder, progress, load_encoder or text_encoders.load).all()
    if job.shard is not None:
        progress.note(merge(job))
    return result


class _Run:
    """One pass over the clips of a part, or over all."""

    def __init__(
        self,
        job: Job,
        folder: OutputFolder,
        progress: Progress,
        load_encoder: Callable[[Job], Encoder],
    ) -> None:
        self.job = job
        self.folder = folder
        self.progress = progress
        self.settings = job.settings()
        self.hash = settings_hash(self.settings)
        self.texts = TextStore(lambda: load_encoder(job))
        self.quoted: set[str] = set()
        self.embedded = 0

    def all(self) -> EmbedTextResult:
        clips = self.job.mine
        unfinished = [clip for clip in clips if not self._finished(clip)]
        if unfinished:
            fix = "choose another --out, or fewer clips with --limit N"
            need = bytes_of(self.job, unfinished)
            check_free_space(self.folder.path, need, fix, spare=_SPARE_DISK)
        empty = self.folder.path / EMPTY_NAME
        if self._sound(empty, [""]):
            self.texts.remember([""], [1], empty)
        else:
            self._write(empty, [""])
        self.progress.start("embedding", sum(len(clip.prompts) for clip in unfinished), "segments")
        most = text_encoders.most_at_once(self.job)
        for group in groups(unfinished, self.texts.known, most):
            self.texts.encode(dict.fromkeys(text for clip in group for text in clip.prompts))
            for clip in group:
                self._clip(clip)
                self.progress.advance(len(clip.prompts))
        self.progress.finish()
        records = [current(self.folder, clip) for clip in clips]
        report = make_report(self.job, clips, records)
        if self.job.shard is None:
            self.folder.complete(records, report)
        else:
            self.folder.finish(records)
            write_part_report(self.folder.path, self.job.shard, items_hash(self.job), {})
        self._warn(report)
        truncated = report["segments_over_budget"]
        return EmbedTextResult([self.folder.path], len(records), self.embedded, truncated, [])

    def _warn(self, report: dict[str, Any]) -> None:
        missing, truncated = report["segments_without_caption"], report["segments_over_budget"]
        if missing:
            what = counted(missing, "segment")
            self.progress.warn(f"{what} without a caption got the empty prompt")
        if truncated:
            self.progress.warn(
                f"{counted(truncated, 'segment')} over {self.job.max_tokens} tokens: what is over "
                "has no effect (report.json lists the clips)"
            )

    def _clip(self, clip: Texts) -> None:
        path = self.folder.path / f"{clip.id}.safetensors"
        if clip.id in self.folder.done:  # its caption changed: no line may describe another file
            self.folder.forget(clip.id)
        lengths, needed = self._write(path, clip.prompts)
        for prompt, count in zip(clip.prompts, needed, strict=True):
            if count > self.job.max_tokens and len(self.quoted) < _SHOWN:
                if prompt not in self.quoted:
                    self.progress.warn(f"{count} tokens, cut to {self.job.max_tokens}: {prompt!r}")
                self.quoted.add(prompt)
        record = {
            **clip.record,
            "id": clip.id,
            "path": path.name,
            "sha256": sha256_file(path),
            "lengths": lengths,
            "tokens_needed": needed,
        }
        self.folder.add(record)
        self.embedded += 1

    def _write(self, path: Path, prompts: list[str]) -> tuple[list[int], list[int]]:
        import torch

        rows = [self.texts[prompt] for prompt in prompts]
        needed = [count for _, count in rows]
        lengths = [min(count, self.job.max_tokens) for count in needed]
        about = {
            "settings_hash": self.hash,
            "encoder": text_encoders.CLASSES[self.job.config.encoder],
            "encoder_hash": self.settings["encoder_hash"],
            "tokenizer_hash": self.settings["tokenizer_hash"],
            "max_tokens": self.job.max_tokens,
            "captions": prompts,
        }
        embeddings = torch.stack([row for row, _ in rows])
        save_embeddings(path, embeddings, torch.tensor(lengths), about)
        self.texts.remember(prompts, needed, path)
        return lengths, needed

    def _finished(self, clip: Texts) -> bool:
        """Tell whether a clip is done; its texts are then known to other clips."""
        record = self.folder.done.get(clip.id, {})
        path = self.folder.path / f"{clip.id}.safetensors"
        # Of several parts one may have an old line of a clip, and another its new file.
        if not record or prompts_of(record) != clip.prompts or not self._sound(path, clip.prompts):
            return False
        self.texts.remember(clip.prompts, record["tokens_needed"], path)
        return True

    def _sound(self, path: Path, prompts: list[str]) -> bool:
        return is_sound(path, prompts, self.hash)
