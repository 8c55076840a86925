"""Encode videos to VAE latents: any files in, one safetensors file a clip and a manifest out.

Each source is decoded twice: once to learn its true length and that it is sound, once to encode it.
Nothing of a damaged file is thus ever encoded, and no clip is ever whole in memory. Sources are
taken in a fixed order and each finished clip is one line of the manifest, so a run that was killed
goes on where it stopped and ends with the bytes of an uninterrupted one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.atomic import sha256_file, write_json
from ttvcli.artifacts.latents import read_latents_metadata, save_latents
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.schema import header, settings_hash
from ttvcli.core.video.decode import Scan, check_file, open_video, probe, scan
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.core.video.picture import PictureReader
from ttvcli.core.video.resample import (
    ClipPlan,
    ClipReader,
    enlarged,
    output_frames,
    plan_clips,
    resample,
)
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.encode_estimate import bytes_per_clip, seconds_per_clip
from ttvcli.workflows.encode_job import EncodeConfig, Job, expected_clips, plain_number, prepare
from ttvcli.workflows.encode_records import Clip, clip_record, finish_manifest, make_report
from ttvcli.workflows.free_space import check_free_space
from ttvcli.workflows.output_folder import OutputFolder
from ttvcli.workflows.step import SILENT, Plan, Progress
from ttvcli.workflows.video_sources import Source

_SPARE_DISK = 64 << 20

Encoder = Callable[[Any], tuple[Any, Any]]


@dataclass(frozen=True)
class EncodeResult:
    """What a run did; `clips` counts all that are there, `encoded` those made by this run."""

    paths: list[Path]
    clips: int
    encoded: int
    failed: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the result as one JSON object."""
        return {
            "paths": [str(path) for path in self.paths],
            "clips": self.clips,
            "encoded": self.encoded,
            "failed": self.failed,
        }


def plan(config: EncodeConfig) -> Plan:
    """Look at every video's header and tell what a run would make; reads no weights."""
    job = prepare(config)
    clips, seconds, unreadable = 0, 0.0, 0
    for source in job.sources.videos:
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
            ("videos", len(job.sources.videos)),
            ("unreadable videos", unreadable),
            ("left out by the manifest", job.sources.left_out),
            ("seconds of video", round(seconds, 1)),
            ("clips, about", clips),
            ("clip", f"{config.frames} frames, {width}x{height}, {float(job.fps):g} fps"),
            ("model", str(job.model)),
            ("output", str(config.out)),
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
    with only_writer(config.out):
        folder = OutputFolder.open(
            config.out, header("latents", settings, made_from), force=config.force
        )
        return _Run(job, folder, progress, load_encoder or _load_encoder).all()


class _Run:
    """One pass over the sources."""

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
        self.encoder: Encoder | None = None
        self.frames_left = 0  # as far as the headers of the videos tell
        self.settings = job.settings()
        self.hash = settings_hash(self.settings)
        self.failed: list[dict[str, Any]] = []
        self.duplicates: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []  # of all clips, in the order of the sources
        self.encoded = 0

    def all(self) -> EncodeResult:
        videos = self.job.sources.videos
        digests = self._look(videos)
        seen: dict[str, str] = {}
        for source, (digest, expected) in zip(videos, digests, strict=True):
            if digest is None:
                continue
            if digest in seen:
                self.duplicates.append({"item": source.name, "same_as": seen[digest]})
                continue
            seen[digest] = source.name
            try:
                self._source(source, digest)
            except UnreadableVideo as error:
                self._fail(source, error)
                self._advance(expected * self.job.config.frames)
        self.progress.finish()
        order = {source.name: number for number, source in enumerate(videos)}
        self.failed.sort(key=lambda entry: order[entry["item"]])
        finish_manifest(self.folder, self.records)
        report = make_report(
            self.settings, self.job.sources, self.records, self.failed, self.duplicates
        )
        write_json(self.folder.path / "report.json", report)
        return EncodeResult([self.folder.path], len(self.records), self.encoded, self.failed)

    def _look(self, videos: list[Source]) -> list[tuple[str | None, int]]:
        """Return (content hash or None, clips to encode) of each source; checks the disk."""
        self.progress.start("reading", len(videos), "videos")
        found: list[tuple[str | None, int]] = []
        for source in videos:
            try:
                check_file(source.path)
                digest = sha256_file(source.path)
                clips = 0
                if self._finished(digest) is None:
                    clips = expected_clips(self.job, probe(source.path).duration)
                found.append((digest, clips))
            except UnreadableVideo as error:
                self._fail(source, error)
                found.append((None, 0))
            except OSError as error:  # a broken disk or a network folder that went away
                self._fail(source, UnreadableVideo("permission", error.strerror or "read error"))
                found.append((None, 0))
            self.progress.advance()
        clips = sum(clips for _, clips in found)
        self._check_disk(clips)
        self.frames_left = clips * self.job.config.frames
        return found

    def _source(self, source: Source, digest: str) -> None:
        finished = self._finished(digest)
        if finished is not None:
            self.records += [clip_record(Clip.from_record(r), source) for r in finished]
            return
        seen = scan(source.path)
        cut = plan_clips(output_frames(seen.duration, self.job.fps), self.job.config.frames)
        if cut.clips == 0:
            need = self.job.config.frames / float(self.job.fps)
            raise UnreadableVideo("too_short", f"{float(seen.duration):.2f} s of {need:.2f} s")
        with open_video(source.path) as video:
            convert = PictureReader(seen.info.sample_aspect, self.job.size)
            timed = ((frame.time, frame.picture) for frame in video.frames())
            pictures = resample(timed, self.job.fps, seen.duration)
            reader = ClipReader(pictures, convert, self.job.config.frames)
            for number in range(cut.clips):
                self._clip(source, digest, seen, cut, number, reader)

    def _clip(
        self,
        source: Source,
        digest: str,
        seen: Scan,
        cut: ClipPlan,
        number: int,
        reader: ClipReader,
    ) -> None:
        name = digest[:16] if cut.clips == 1 else f"{digest[:16]}-{number:04d}"
        old = self.folder.done.get(name)
        if old is not None and self._sound(old):
            reader.skip()
            self._advance(self.job.config.frames)
            self.records.append(clip_record(Clip.from_record(old), source))
            return
        if self.encoder is None:  # loaded before the clock of the progress bar starts
            self.encoder = self.load_encoder(self.job)
            self.progress.start("encoding", self.frames_left, "frames")
        mean, logvar = self.encoder(self._counted(reader))
        frames, fps = self.job.config.frames, self.job.fps
        path = self.folder.path / f"{name}.safetensors"
        start = float(number * frames / fps)
        about = {
            "settings_hash": self.hash,
            "vae": model_folder.COMPONENTS["vae"][1],
            "vae_hash": self.settings["vae_hash"],
            "fps": plain_number(fps),
            "width": self.job.size[0],
            "height": self.job.size[1],
            "frames": frames,
            "start": round(start, 6),
            "source_sha256": digest,
        }
        save_latents(path, mean, logvar, about)
        notes = list(seen.info.notes)
        factor = enlarged((seen.info.width, seen.info.height), self.job.size)
        if factor > 1:
            notes.append(f"enlarged {factor:.2f} times")
        clip = Clip(
            id=name,
            path=path.name,
            sha256=sha256_file(path),
            width=self.job.size[0],
            height=self.job.size[1],
            fps=plain_number(fps),
            frames=frames,
            source_sha256=digest,
            clip=number,
            clips=cut.clips,
            start=round(start, 6),
            held=cut.held if number == cut.clips - 1 else 0,
            dropped=cut.dropped,
            notes=notes,
        )
        record = clip_record(clip, source)
        self.folder.add(record)
        self.records.append(record)
        self.encoded += 1

    def _counted(self, reader: ClipReader) -> Any:
        for chunk in reader.chunks():
            yield chunk
            self._advance(len(chunk))

    def _advance(self, frames: int) -> None:
        """Count frames that are encoded, or that turned out not to be."""
        self.frames_left -= frames
        if self.encoder is not None:
            self.progress.advance(frames)

    def _finished(self, digest: str) -> list[dict[str, Any]] | None:
        """Return the records of a source all of whose clips are there and sound, else None."""
        records = self.folder.of_source(digest)
        if not records or len(records) != records[0].get("clips"):
            return None
        return records if all(self._sound(record) for record in records) else None

    def _sound(self, record: dict[str, Any]) -> bool:
        """Tell whether the file of a record is whole; if not, forget the record."""
        try:
            about = read_latents_metadata(self.folder.path / record["path"])
        except ArtifactError:
            about = {}
        if about.get("settings_hash") == self.hash:
            return True
        self.folder.forget(record["id"])
        return False

    def _check_disk(self, clips: int) -> None:
        job = self.job
        need = clips * bytes_per_clip(job.vae, job.config.frames, job.size)
        if clips:
            fix = "choose another --out, or fewer videos with --limit N"
            check_free_space(self.folder.path, need + _SPARE_DISK, fix)

    def _fail(self, source: Source, error: UnreadableVideo) -> None:
        self.failed.append(
            {"item": source.name, "reason": error.reason_code, "detail": error.detail}
        )


def _load_encoder(job: Job) -> Encoder:
    """Load the model's VAE; the function it gives encodes one stream of chunks."""
    import torch

    from ttvcli.core.device import DTYPES, pick_device
    from ttvcli.workflows import components

    if job.config.threads:
        torch.set_num_threads(job.config.threads)
    try:
        device = pick_device(job.config.device)
    except ValueError as error:
        raise UsageError(str(error), fix="--device cpu") from error
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
