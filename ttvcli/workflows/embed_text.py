"""Embed captions with the model's T5: one safetensors file a clip, one row of tokens a segment.

Each text is encoded by itself, never in a batch with others: the sums in a matrix product depend on
the batch, and a run that was stopped and continued has to give the same bytes.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.atomic import sha256_file, write_json
from ttvcli.artifacts.embeddings import EMPTY_NAME, read_embeddings_metadata, save_embeddings
from ttvcli.artifacts.lock import only_writer
from ttvcli.artifacts.schema import header, settings_hash
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.output_folder import OutputFolder
from ttvcli.workflows.step import SILENT, Plan, Progress
from ttvcli.workflows.text_sources import Texts, find_texts

_RULES = 1  # counts up when equal captions and settings give other embeddings
_CACHE_BYTES = 512 << 20
_SHOWN = 3  # texts over the budget that are quoted
_CPU_FLOPS = 50e9
_GPU_FLOPS = 60e12

# Text to (embeddings [L, D], tokens needed before cutting).
Encoder = Callable[[str], tuple[Any, int]]


@dataclass(frozen=True, kw_only=True)
class EmbedTextConfig:
    """Settings of `ttv embed-text`; the field defaults are the defaults of the command."""

    source: str = field(
        metadata={"help": "folder of latents, a manifest, a .txt with a prompt a line, or -"}
    )
    out: Path = field(metadata={"help": "folder for the embeddings"})
    model: str = field(
        default="tiny", metadata={"help": "model whose text encoder: tiny, a folder"}
    )
    max_tokens: int = field(
        default=0, metadata={"help": "tokens of a segment, padding included; 0 asks the model"}
    )
    dtype: Literal["fp32", "bf16"] = field(
        default="fp32", metadata={"help": "arithmetic of the encoder; results are stored as bf16"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves it to PyTorch"})
    force: bool = field(default=False, metadata={"help": "embed everything again"})
    limit: int = field(default=0, metadata={"help": "take only the first N clips; 0 takes all"})

    def __post_init__(self) -> None:
        if min(self.max_tokens, self.threads, self.limit) < 0:
            raise ValueError(
                f"max_tokens {self.max_tokens}, threads {self.threads} and limit {self.limit} "
                "start at 0"
            )


@dataclass(frozen=True)
class EmbedTextResult:
    """What a run did; `truncated` counts segments whose text was over the budget."""

    paths: list[Path]
    clips: int
    embedded: int
    truncated: int
    failed: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the result as one JSON object."""
        return {
            "paths": [str(path) for path in self.paths],
            "clips": self.clips,
            "embedded": self.embedded,
            "truncated": self.truncated,
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Job:
    """A checked config: everything that is known before the encoder is loaded."""

    config: EmbedTextConfig
    clips: list[Texts]
    model: Path
    max_tokens: int

    def settings(self) -> dict[str, Any]:
        """What embeddings depend on, besides the texts."""
        return {
            "step": "embed-text",
            "rules": _RULES,
            "encoder_hash": model_folder.component_hash(self.model, "text_encoder"),
            "tokenizer_hash": model_folder.component_hash(self.model, "tokenizer"),
            "max_tokens": self.max_tokens,
            "dtype": self.config.dtype,
        }


def plan(config: EmbedTextConfig) -> Plan:
    """Count clips, texts and bytes; reads no weights."""
    job = _prepare(config)
    sizes = model_folder.read_config(job.model, "text_encoder")
    prompts = [prompt for clip in job.clips for prompt in clip.prompts]
    distinct = len(set(prompts) | {""})
    rate = _GPU_FLOPS if config.device.startswith("cuda") else _CPU_FLOPS
    width, inner = int(sizes.get("d_model", 4096)), int(sizes.get("d_ff", 10240))
    heads = int(sizes.get("num_heads", 64)) * int(sizes.get("d_kv", 64))
    weights = int(sizes.get("num_layers", 24)) * width * (4 * heads + 3 * inner)
    return Plan(
        command="embed-text",
        items=[
            ("clips", len(job.clips)),
            ("segments", len(prompts)),
            ("distinct texts", distinct),
            ("segments without a caption", sum(not prompt for prompt in prompts)),
            ("tokens a segment", job.max_tokens),
            ("model", str(job.model)),
            ("output", str(config.out)),
        ],
        bytes={"disk": (len(prompts) + 1) * job.max_tokens * width * 2 + 1024 * len(job.clips)},
        eta_seconds=distinct * 2 * weights * job.max_tokens / rate,
    )


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
        load_encoder: makes the function from a text to (embeddings `[L, D]`, tokens needed); called
            only if there is something to embed.

    Raises:
        UsageError: the output was made with other settings, or another process writes there.
        ArtifactError: no captions, or the model's text encoder or tokenizer cannot be read.
    """
    job = _prepare(config)
    settings = job.settings()
    made_from = {key: settings[key] for key in ("encoder_hash", "tokenizer_hash")}
    with only_writer(config.out):
        folder = OutputFolder.open(
            config.out, header("embeddings", settings, made_from), force=config.force
        )
        return _Run(job, folder, progress, load_encoder or _load_encoder).all()


class _Run:
    """One pass over the clips."""

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
        self.texts = _Cached(lambda: load_encoder(job))
        self.quoted: set[str] = set()
        self.embedded = 0

    def all(self) -> EmbedTextResult:
        unfinished = [clip for clip in self.job.clips if not self._finished(clip)]
        empty = self.folder.path / EMPTY_NAME
        if not self._sound(empty, [""]):
            self._write(empty, [""])
        self.progress.start("embedding", sum(len(clip.prompts) for clip in unfinished), "segments")
        for clip in unfinished:
            self._clip(clip)
            self.progress.advance(len(clip.prompts))
        self.progress.finish()
        records = [self._current(clip) for clip in self.job.clips]
        present = {record["id"] for record in records}
        others = [record for name, record in self.folder.done.items() if name not in present]
        self.folder.rewrite([*records, *others])
        report = self._report(records)
        write_json(self.folder.path / "report.json", report)
        missing, truncated = report["segments_without_caption"], report["segments_over_budget"]
        if missing:
            self.progress.warn(f"{missing} segments have no caption; they got the empty prompt")
        if truncated:
            self.progress.warn(
                f"{truncated} segments are over {self.job.max_tokens} tokens; the ends of their "
                "captions have no effect (report.json lists the clips)"
            )
        return EmbedTextResult([self.folder.path], len(records), self.embedded, truncated, [])

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

        rows = [self.texts(prompt) for prompt in prompts]
        needed = [count for _, count in rows]
        lengths = [min(count, self.job.max_tokens) for count in needed]
        about = {
            "settings_hash": self.hash,
            "encoder": model_folder.COMPONENTS["text_encoder"][1],
            "encoder_hash": self.settings["encoder_hash"],
            "tokenizer_hash": self.settings["tokenizer_hash"],
            "max_tokens": self.job.max_tokens,
            "captions": prompts,
        }
        embeddings = torch.stack([row for row, _ in rows])
        save_embeddings(path, embeddings, torch.tensor(lengths), about)
        return lengths, needed

    def _finished(self, clip: Texts) -> bool:
        return clip.id in self.folder.done and self._sound(
            self.folder.path / f"{clip.id}.safetensors", clip.prompts
        )

    def _sound(self, path: Path, prompts: list[str]) -> bool:
        """Tell whether a file is there, whole, and of these texts and settings."""
        try:
            about = read_embeddings_metadata(path)
        except ArtifactError:
            return False
        return about.get("settings_hash") == self.hash and about.get("captions") == prompts

    def _current(self, clip: Texts) -> dict[str, Any]:
        """Return the record of a finished clip with what its source says now."""
        old = self.folder.done[clip.id]
        own = {key: old[key] for key in ("path", "sha256", "lengths", "tokens_needed")}
        return {**clip.record, "id": clip.id, **own}

    def _report(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        limit = self.job.max_tokens
        over = [r["id"] for r in records if max(r["tokens_needed"], default=0) > limit]
        prompts = [prompt for clip in self.job.clips for prompt in clip.prompts]
        return {
            **header("report", self.settings),
            "clips": len(records),
            "segments": len(prompts),
            "distinct_texts": len(set(prompts)),
            "segments_without_caption": sum(not prompt for prompt in prompts),
            "segments_over_budget": sum(n > limit for r in records for n in r["tokens_needed"]),
            "clips_over_budget": over,
        }


class _Cached:
    """Encodes each text once, as long as its embedding fits the memory set aside for it."""

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self._load = load
        self._encoder: Encoder | None = None
        self._known: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def __call__(self, text: str) -> tuple[Any, int]:
        if text in self._known:
            self._known.move_to_end(text)
            return self._known[text]
        if self._encoder is None:
            self._encoder = self._load()
        found = self._encoder(text)
        self._known[text] = found
        self._bytes += found[0].nbytes
        while self._bytes > _CACHE_BYTES and len(self._known) > 1:
            _, (oldest, _) = self._known.popitem(last=False)
            self._bytes -= oldest.nbytes
        return found


def _prepare(config: EmbedTextConfig) -> Job:
    clips = find_texts(config.source)
    if config.limit:
        clips = clips[: config.limit]
    model = model_folder.resolve_model(config.model)
    for component in ("text_encoder", "tokenizer"):
        if not model_folder.has_component(model, component):
            raise ArtifactError(
                f"the model has no {component}",
                where=str(model),
                fix="name a model that has it with --model",
            )
    source = Path(config.source)
    if (
        config.source != "-"
        and config.out.exists()
        and config.out.resolve()
        in (
            source.resolve(),
            source.resolve().parent,
        )
    ):
        raise UsageError(
            "the output would be among the latents",
            where=str(config.out),
            fix="choose another --out; sources are never changed",
        )
    return Job(config, clips, model, config.max_tokens or _own_length(model))


def _own_length(model: Path) -> int:
    if not model_folder.has_component(model, "transformer"):
        raise UsageError("the model names no text length", fix="add --set max_tokens=226")
    return int(model_folder.read_config(model, "transformer").get("max_text_seq_length", 226))


def _load_encoder(job: Job) -> Encoder:
    """Load the model's tokenizer and T5."""
    import torch

    from ttvcli.core.device import pick_device
    from ttvcli.workflows import components

    if job.config.threads:
        torch.set_num_threads(job.config.threads)
    try:
        device = pick_device(job.config.device)
    except ValueError as error:
        raise UsageError(str(error), fix="--device cpu") from error
    tokenizer = components.load_tokenizer(job.model)
    encoder = components.load(job.model, "text_encoder", dtype=job.config.dtype, device=device)

    def encode(text: str) -> tuple[Any, int]:
        ids = torch.tensor([tokenizer.encode(text, job.max_tokens)], device=device)
        with torch.inference_mode():
            return encoder(ids)[0].to("cpu", torch.bfloat16), tokenizer.count(text)

    return encode
