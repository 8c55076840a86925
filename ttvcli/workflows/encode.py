"""Encode videos to VAE latents: any files in, one safetensors file a clip and a manifest out.

Processes look at all sources, then decode them ahead of the encoder; see `decode_pool`. Nothing of
a source stays that turns out damaged, up to its last frame. Each finished clip is one line of the
manifest and the end brings them into the order of the sources, so a run that was killed goes on
where it stopped and ends with the bytes of an uninterrupted one, whatever the number of processes
or parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts.schema import header, settings_hash
from ttvcli.core.video.clip_stream import Broken
from ttvcli.core.video.decode import probe
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.workflows.decode_pool import open_decoder
from ttvcli.workflows.decode_worker import DecodeTask, Looked, LookTask
from ttvcli.workflows.encode_engine import ENGINES, Item
from ttvcli.workflows.encode_estimate import bytes_per_clip, seconds_per_clip
from ttvcli.workflows.encode_job import EncodeConfig, Job, expected_clips, prepare
from ttvcli.workflows.encode_merge import damaged_before, is_sound, items_hash, merge
from ttvcli.workflows.encode_records import Clip, clip_record, make_report, outcome
from ttvcli.workflows.encode_source import Encoder, Hooks, SourceState
from ttvcli.workflows.encode_verify import verify
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.output_folder import OutputFolder, check_output, summary, warn_of_others
from ttvcli.workflows.shards import write_part_report, writing
from ttvcli.workflows.step import SILENT, PlainResult, Plan, Progress
from ttvcli.workflows.video_sources import OTHER_FILE, Source, unread_tables

_SPARE_DISK = 64 << 20


@dataclass(frozen=True)
class EncodeResult(PlainResult):
    """What a run did; `clips` counts all that are there, `encoded` those made by this run."""

    paths: list[Path]
    clips: int
    encoded: int
    failed: list[dict[str, Any]]


def plan(config: EncodeConfig) -> Plan:
    """Look at every video's header and tell what a run would make; reads no weights."""
    job = prepare(config)
    check_output(config.out, "latents", job.told(), force=config.force)
    clips, seconds, unreadable = 0, 0.0, 0
    for source in job.videos:
        try:
            info = probe(source.path)
        except UnreadableVideo:
            unreadable += 1
            continue
        seconds += info.duration or 0.0
        clips += expected_clips(job, info.duration)
    width, height = job.size
    return Plan(
        command="prep encode",
        items=[
            ("videos", len(job.videos)),
            ("unreadable videos", unreadable),
            ("left out by the manifest", job.sources.left_out),
            ("seconds of video", round(seconds, 1)),
            ("clips, about", clips),
            ("clip", f"{config.frames} frames, {width}x{height}, {float(job.fps):g} fps"),
            ("model", str(job.model)),
            ("output", str(config.out)),
            ("processes that decode", job.workers),
        ],
        bytes={"disk": clips * bytes_per_clip(job.vae, config.frames, job.size)},
        eta_seconds=clips * seconds_per_clip(job.vae, config.frames, job.size, config.device),
    )


def run(
    config: EncodeConfig,
    progress: Progress = SILENT,
    *,
    load_encoder: Callable[[Job], Encoder] | None = None,
) -> EncodeResult:
    """Encode every video that is not done yet.

    Args:
        config: settings.
        progress: where to report.
        load_encoder: makes the function from an iterator of uint8 chunks `[T, H, W, 3]` to (mean,
            logvar) `[C, T, H, W]`; called only if there is something to encode.

    Raises:
        UsageError: the output was made with other settings, or another process writes there.
        WouldNotFit: not enough disk.
        ArtifactError: no source, or the model's VAE cannot be read.
    """
    job = prepare(config)
    settings = job.settings()
    made_from = {"vae": settings["vae_hash"]}
    with writing(config.out, job.shard):
        folder = OutputFolder.open(
            config.out,
            header("latents", settings, made_from),
            force=config.force,
            shard=job.shard,
        )
        result = _Run(job, folder, progress, load_encoder or _load_encoder).all()
    if job.shard is not None:
        progress.note(merge(job))
    return result


class _Run:
    """One pass over the sources of a part, or over all."""

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
        self.load_encoder = load_encoder
        self.settings = job.settings()
        self.hash = settings_hash(self.settings)
        self.digests: dict[str, str] = {}  # of the sources that can be read
        self.failures: dict[str, dict[str, Any]] = {}
        self.first: dict[str, Source] = {}  # hash to the first source with these bytes
        self.suspects = damaged_before(folder.path)  # hashes
        self.frames = 0  # to encode, as far as the headers of the videos tell
        self.encoded: set[str] = set()  # ids of clips made by this run

    def all(self) -> EncodeResult:
        videos = self.job.videos
        items = self._todo(videos, self._look(videos))
        hooks = Hooks(self._add, self._void, self.progress.advance)
        ENGINES[self.job.config.engine](self.job, self.folder.path, items, self._load, hooks)
        for item in items:
            if item.state.broken is not None:
                self._fail(self.first[item.state.digest], item.state.broken)
        self.progress.finish()
        found = outcome(videos, self.digests, self.failures, self._clips_of)
        if self.job.shard is None:
            report = make_report(self.settings, self.job.sources, found)
            others = self.folder.complete(found.records, report)
            warn_of_others(self.progress, others)
            hint = unread_tables(self.job.config.source, self.job.sources)
            if hint and report["clips_without_caption"]:
                self.progress.warn(hint)
            used, copies = report["encoded_videos"], len(found.duplicates)
            self.progress.note(summary(len(found.records), used, len(videos), copies))
        else:
            self.folder.finish(found.records)
            content = {"digests": self.digests, "failures": self.failures}
            write_part_report(self.folder.path, self.job.shard, items_hash(self.job), content)
        paths = [self.folder.path]
        if self.job.config.verify and found.records:
            made = [r for r in found.records if r["id"] in self.encoded] or found.records
            paths.append(verify(self.job, self.folder.path, made[0], self.progress))
        return EncodeResult(paths, len(found.records), len(self.encoded), found.failed)

    def _look(self, videos: list[Source]) -> dict[str, float | None]:
        """Hash every source; return what it says it lasts, by the hash. Failures are kept."""
        self.progress.start("reading", len(videos), "videos")
        lasts: dict[str, float | None] = {}
        with open_decoder([LookTask(v.path) for v in videos], self.job.workers) as decoder:
            while (stream := decoder.ready()) is not None:
                event = stream.take()
                if event is None:
                    self.progress.advance()
                    continue
                source = videos[stream.index]
                if isinstance(event, Looked) and source.described(event.sha256):
                    self.digests[source.name] = event.sha256
                    lasts[event.sha256] = event.duration
                elif isinstance(event, Looked):
                    self._fail(source, Broken("changed", OTHER_FILE))
                else:
                    self._fail(source, event)
        return lasts

    def _todo(self, videos: list[Source], lasts: dict[str, float | None]) -> list[Item]:
        """Return what is to be encoded; checks the disk."""
        for source in videos:
            if source.name in self.digests:
                self.first.setdefault(self.digests[source.name], source)
        items, clips = [], 0
        for digest, source in self.first.items():
            old = self._clips_of(digest, check=True)
            if old and len(old) == old[0].clips:
                continue
            state = SourceState(digest, {clip.clip: clip for clip in old})
            skip = frozenset(state.old)
            job = self.job
            suspect = digest in self.suspects
            task = DecodeTask(source.path, job.size, job.fps, job.config.frames, skip, suspect)
            items.append(Item(task, state))
            clips += max(expected_clips(job, lasts[digest]) - len(old), 0)
        self.frames = clips * self.job.config.frames
        self._check_disk(clips)
        return items

    def _load(self, job: Job) -> Encoder:
        encoder = self.load_encoder(job)  # before the clock of the progress bar starts
        self.progress.start("encoding", self.frames, "frames")
        return encoder

    def _add(self, state: SourceState, clip: Clip) -> None:
        self.folder.add(clip_record(clip, self.first[state.digest]))
        self.encoded.add(clip.id)

    def _void(self, state: SourceState) -> None:
        for clip in state.clips:
            self.folder.forget(clip.id)
            self.encoded.discard(clip.id)

    def _clips_of(self, digest: str, *, check: bool = False) -> list[Clip]:
        """The clips of a source that are there, in order; `check` forgets those not sound."""
        records = self.folder.of_source(digest)
        if check:
            records = [record for record in records if self._sound(record)]
        return sorted(map(Clip.from_record, records), key=lambda clip: clip.clip)

    def _sound(self, record: dict[str, Any]) -> bool:
        """Tell whether the file of a record is whole; if not, forget the record."""
        if is_sound(self.folder.path / record["path"], self.hash):
            return True
        self.folder.forget(record["id"])
        return False

    def _check_disk(self, clips: int) -> None:
        job = self.job
        need = clips * bytes_per_clip(job.vae, job.config.frames, job.size)
        if clips:
            fix = "choose another --out, or fewer videos with --limit N"
            check_free_space(self.folder.path, need, fix, spare=_SPARE_DISK)

    def _fail(self, source: Source, broken: Broken) -> None:
        entry = {"item": source.name, "reason": broken.reason_code, "detail": broken.detail}
        digest = self.digests.get(source.name)
        self.failures[source.name] = entry | ({"sha256": digest} if digest else {})


def _load_encoder(job: Job) -> Encoder:
    """Load the model's VAE; the function it gives encodes one stream of chunks."""
    import torch

    from ttvcli.core.device import DTYPES
    from ttvcli.workflows import components

    if job.config.threads:
        torch.set_num_threads(job.config.threads)
    device = components.existing_device(job.config.device)
    dtype = DTYPES[job.config.dtype]
    vae: Any = components.load(job.model, "vae", dtype=job.config.dtype, device=device)

    def encode(chunks: Any) -> tuple[Any, Any]:
        def tensors() -> Any:
            for chunk in chunks:
                pixels = torch.from_numpy(chunk).to(device).permute(3, 0, 1, 2)[None]
                yield (pixels.float() / 127.5 - 1.0).to(dtype)

        with torch.inference_mode():
            parts = [(m.float().cpu(), v.float().cpu()) for m, v in vae.encode_chunks(tensors())]
        means, logvars = zip(*parts, strict=True)
        return torch.cat(means, dim=2)[0], torch.cat(logvars, dim=2)[0]

    return encode
