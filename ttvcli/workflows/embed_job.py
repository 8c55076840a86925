"""What `embed-text` is asked to do, checked before the encoder is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ttvcli.artifacts import clip_folder, model_folder
from ttvcli.errors import ArtifactError, UsageError
from ttvcli.workflows.output_folder import check_output
from ttvcli.workflows.shards import Shard, refuse_force
from ttvcli.workflows.step import Plan
from ttvcli.workflows.text_sources import Texts, find_texts

_RULES = 1  # counts up when equal captions and settings give other embeddings
_CPU_FLOPS = 50e9
_GPU_FLOPS = 60e12


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
    encoder: Literal["t5", "clip"] = field(
        default="t5", metadata={"help": "t5 of the model, or clip: a folder of transformers"}
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
    batch: int = field(
        default=0,
        metadata={"help": "texts at once, as far as no bit changes; 0: 16 on a GPU, else 1"},
    )
    shard: str = field(default="", metadata={"help": "part of the clips, such as 2/8"})

    def __post_init__(self) -> None:
        for name in ("max_tokens", "threads", "limit", "batch"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} starts at 0, got {getattr(self, name)}")
        Shard.parse(self.shard)


@dataclass(frozen=True)
class Job:
    """A checked config: everything that is known before the encoder is loaded."""

    config: EmbedTextConfig
    clips: list[Texts]
    model: Path
    max_tokens: int

    @property
    def shard(self) -> Shard | None:
        """The part that is to be done; None for everything."""
        return Shard.parse(self.config.shard)

    @property
    def mine(self) -> list[Texts]:
        """The clips that are to be done. Clips of equal texts are in one part."""
        part = self.shard
        return [c for c in self.clips if part is None or part.owns("\0".join(c.prompts))]

    def settings(self) -> dict[str, Any]:
        """What embeddings depend on, besides the texts."""
        return {
            "step": "embed-text",
            "rules": _RULES,
            "encoder_hash": self.hash_of("text_encoder"),
            "tokenizer_hash": self.hash_of("tokenizer"),
            **self.told(),
        }

    def told(self) -> dict[str, Any]:
        """The settings for which no weights have to be read."""
        return {"rules": _RULES, "max_tokens": self.max_tokens, "dtype": self.config.dtype}

    def hash_of(self, component: str) -> str:
        """The hash of the text encoder or the tokenizer."""
        if self.config.encoder == "clip":
            return clip_folder.hash_of(self.model, component)
        return model_folder.component_hash(self.model, component)


def plan(config: EmbedTextConfig) -> Plan:
    """Count clips, texts and bytes; reads no weights."""
    job = prepare(config)
    check_output(config.out, "embeddings", job.told(), force=config.force)
    sizes = _sizes(job)
    prompts = [prompt for clip in job.mine for prompt in clip.prompts]
    distinct = len(set(prompts) | {""})
    rate = _GPU_FLOPS if config.device.startswith("cuda") else _CPU_FLOPS
    width, inner = int(sizes.get("d_model", 4096)), int(sizes.get("d_ff", 10240))
    heads = int(sizes.get("num_heads", 64)) * int(sizes.get("d_kv", 64))
    weights = int(sizes.get("num_layers", 24)) * width * (4 * heads + 3 * inner)
    return Plan(
        command="embed-text",
        items=[
            ("clips", len(job.mine)),
            ("segments", len(prompts)),
            ("distinct texts", distinct),
            ("segments without a caption", sum(not prompt for prompt in prompts)),
            ("tokens a segment", job.max_tokens),
            ("model", str(job.model)),
            ("output", str(config.out)),
        ],
        bytes={"disk": bytes_of(job, job.mine)},
        eta_seconds=distinct * 2 * weights * job.max_tokens / rate,
    )


def bytes_of(job: Job, clips: Sequence[Texts]) -> int:
    """Return about how many bytes the embeddings of these clips and of the empty prompt take."""
    rows = sum(len(clip.prompts) for clip in clips) + 1
    width = int(_sizes(job).get("d_model", 4096))
    return rows * job.max_tokens * width * 2 + 1024 * len(clips)


def _sizes(job: Job) -> dict[str, Any]:
    """The config of the encoder, with the names of T5's."""
    if job.config.encoder == "clip":
        return clip_folder.as_t5(job.model)
    return model_folder.read_config(job.model, "text_encoder")


def prepare(config: EmbedTextConfig) -> Job:
    """Find the texts and the encoder, and check that they go together.

    Raises:
        ArtifactError: no captions, or no text encoder in the model.
        UsageError: an output among the latents, or a model that names no text length.
    """
    refuse_force(Shard.parse(config.shard), config.force)
    clips = find_texts(config.source)
    if config.limit:
        clips = clips[: config.limit]
    clip = config.encoder == "clip"
    model = Path(config.model) if clip else model_folder.resolve_model(config.model)
    if clip:
        clip_folder.check(model)
    for component in () if clip else ("text_encoder", "tokenizer"):
        if not model_folder.has_component(model, component):
            raise ArtifactError(
                f"the model has no {component}",
                where=str(model),
                fix="name a model that has it with --model",
            )
    source = Path(config.source).resolve()
    among = config.source != "-" and config.out.resolve() in (source, source.parent)
    if among and config.out.exists():
        raise UsageError(
            "the output would be among the latents",
            where=str(config.out),
            fix="choose another --out; sources are never changed",
        )
    own = clip_folder.longest_text if clip else _own_length
    return Job(config, clips, model, config.max_tokens or own(model))


def _own_length(model: Path) -> int:
    if not model_folder.has_component(model, "transformer"):
        raise UsageError("the model names no text length", fix="add --set max_tokens=226")
    return int(model_folder.read_config(model, "transformer").get("max_text_seq_length", 226))
