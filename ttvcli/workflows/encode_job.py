"""What `prep encode` is asked to do, checked before any video is opened."""

from dataclasses import dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ttvcli.artifacts import model_folder
from ttvcli.core.video.resample import check_clip_frames, output_frames, plan_clips
from ttvcli.errors import UsageError
from ttvcli.workflows.decode_pool import on_gpu, worker_count
from ttvcli.workflows.shards import Shard, refuse_force
from ttvcli.workflows.video_sources import Source, Sources, check_apart, find_sources

# Counts up when the pixels that reach the VAE change for the same settings.
_RULES = 1


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Settings of `ttv prep encode`; the field defaults are the defaults of the command."""

    source: str = field(metadata={"help": "folder of videos, a video, a manifest, or - for stdin"})
    out: Path = field(metadata={"help": "folder for the latents"})
    model: str = field(default="tiny", metadata={"help": "model whose VAE encodes: tiny, a folder"})
    size: str = field(default="", metadata={"help": "WxH in pixels; empty takes the model's own"})
    fps: float = field(default=16.0, metadata={"help": "frames per second of the clips"})
    frames: int = field(default=49, metadata={"help": "frames of a clip: 8k + 1"})
    dtype: Literal["fp32", "bf16", "fp16"] = field(
        default="fp32", metadata={"help": "arithmetic of the VAE; latents are stored as bf16"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, mps"})
    threads: int = field(default=0, metadata={"help": "CPU threads; 0 leaves it to PyTorch"})
    force: bool = field(default=False, metadata={"help": "encode everything again"})
    limit: int = field(default=0, metadata={"help": "take only the first N videos; 0 takes all"})
    workers: int = field(
        default=0, metadata={"help": "processes that decode ahead; 0 suits the machine"}
    )
    shard: str = field(default="", metadata={"help": "part of the videos, such as 2/8"})
    engine: Literal["local", "ray"] = field(
        default="local", metadata={"help": "local, or ray: on the cluster of RAY_ADDRESS"}
    )
    actors: int = field(
        default=0, metadata={"help": "encoders on the Ray cluster; 0: one for each GPU, or node"}
    )
    verify: bool = field(
        default=False, metadata={"help": "decode one latent to a video to look at"}
    )

    def __post_init__(self) -> None:
        check_clip_frames(self.frames)
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps must be above 0 and at most 1000, got {self.fps}")
        for name in ("threads", "limit", "workers", "actors"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} starts at 0, got {getattr(self, name)}")
        Shard.parse(self.shard)
        if self.size:
            parse_size(self.size)


@dataclass(frozen=True)
class Job:
    """A checked config: everything that is known before a video is opened."""

    config: EncodeConfig
    sources: Sources  # of all parts
    model: Path
    vae: dict[str, Any]  # its config.json
    size: tuple[int, int]
    fps: Fraction

    @property
    def shard(self) -> Shard | None:
        """The part that is to be done; None for everything."""
        return Shard.parse(self.config.shard)

    @property
    def videos(self) -> list[Source]:
        """The sources that are to be done."""
        part = self.shard
        return [v for v in self.sources.videos if part is None or part.owns(v.name)]

    @property
    def workers(self) -> int:
        """Processes that decode."""
        return self.config.workers or worker_count(on_gpu=on_gpu(self.config.device))

    def settings(self) -> dict[str, Any]:
        """What latents depend on; device, threads and paths do not belong to it."""
        return {
            "step": "prep encode",
            "rules": _RULES,
            "vae_hash": model_folder.component_hash(self.model, "vae"),
            **self.told(),
        }

    def told(self) -> dict[str, Any]:
        """The settings for which no weights have to be read."""
        return {
            "rules": _RULES,
            "width": self.size[0],
            "height": self.size[1],
            "fps": str(self.fps),
            "frames": self.config.frames,
            "dtype": self.config.dtype,
        }


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) of "720x480"; ValueError for anything else."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"size must be WIDTHxHEIGHT such as 720x480, got {text!r}")
    return int(parts[0]), int(parts[1])


def prepare(config: EncodeConfig) -> Job:
    """Find the sources and the model, and check that they go together.

    Raises:
        ArtifactError: no source, or no VAE in the model.
        UsageError: no Ray, a size the VAE cannot take, or an output among the sources.
    """
    refuse_force(Shard.parse(config.shard), config.force)
    if config.engine == "ray" and find_spec("ray") is None:
        raise UsageError("Ray is not installed", fix="pip install 'ttv[ray]', or --engine local")
    sources = find_sources(config.source).first(config.limit)
    model = model_folder.resolve_model(config.model)
    vae = model_folder.read_config(model, "vae")
    ratio = 2 ** (len(vae.get("block_out_channels", (1, 1, 1, 1))) - 1)
    size = parse_size(config.size) if config.size else _own_size(model, vae, ratio)
    if size[0] % ratio or size[1] % ratio:
        raise UsageError(
            f"size {size[0]}x{size[1]} does not divide by {ratio}, as this VAE needs",
            fix=f"for example --size {size[0] // ratio * ratio or ratio}x"
            f"{size[1] // ratio * ratio or ratio}",
        )
    check_apart(config.source, config.out, below=config.verify)  # verify.mp4 would be a source
    fps = Fraction(str(config.fps)).limit_denominator(1001)
    return Job(config, sources, model, vae, size, fps)


def _own_size(model: Path, vae: dict[str, Any], ratio: int) -> tuple[int, int]:
    """The pixel size that a model was made for."""
    if "sample_width" in vae and "sample_height" in vae:
        return int(vae["sample_width"]), int(vae["sample_height"])
    if model_folder.has_component(model, "transformer"):
        sizes = model_folder.read_config(model, "transformer")
        if "sample_width" in sizes and "sample_height" in sizes:  # counted in latents
            return ratio * int(sizes["sample_width"]), ratio * int(sizes["sample_height"])
    raise UsageError("the model names no size of its own", fix="add --size 720x480")


def expected_clips(job: Job, duration: float | None) -> int:
    """Clips that a video of a stated length will give; 1 if it does not state it."""
    if duration is None:
        return 1
    frames = output_frames(Fraction(duration).limit_denominator(1_000_000), job.fps)
    return plan_clips(frames, job.config.frames).clips


def plain_number(value: Fraction) -> int | float:
    """Return 16 for 16/1, 23.976... for 24000/1001."""
    return int(value) if value.denominator == 1 else float(value)
