"""What `ttv sample` was asked for, settled: every setting has its value and every text fits.

Everything that can be refused is refused here, from headers and configurations alone.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttvcli import catalog
from ttvcli.artifacts import model_folder
from ttvcli.artifacts.atomic import sha256_file
from ttvcli.artifacts.file_hashes import bytes_to_read
from ttvcli.artifacts.schema import plain, settings_hash
from ttvcli.artifacts.storyboard import Storyboard
from ttvcli.errors import ArtifactError, UsageError, nearest
from ttvcli.workflows.dtype_choice import choose_dtype
from ttvcli.workflows.first_frame import check_image
from ttvcli.workflows.sample_fit import check_fit, compression, fit_warnings, settle_size
from ttvcli.workflows.sample_length import makes_segments, settle_length
from ttvcli.workflows.sample_texts import settle_texts

if TYPE_CHECKING:
    from ttvcli.workflows.sample import SampleConfig

DEFAULTS = {"steps": 50, "guidance": 6.0, "guidance_mode": "constant", "sampler": "ddim"}
_HASHED = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
# Settings that decide where a video goes or how fast it is made, not what it shows.
_NOT_OF_THE_VIDEO = (
    *("out", "contact_sheet", "keep_latents", "force", "checkpoint_every"),
    *("device", "threads", "model_hash", "image_hash", "offload", "vram_limit"),
)
# Settings that the identity holds as what they came to.
_SETTLED = ("prompt", "storyboard", "seconds", "frames", "fps", "size", "image")


@dataclass(frozen=True)
class Request:
    """A checked request: every setting has its value, every text fits."""

    config: "SampleConfig"
    folder: Path
    board: Storyboard
    width: int
    height: int
    frames: int
    fps: int
    tokens: int
    transformer: dict[str, Any]
    vae: dict[str, Any]
    about: dict[str, Any]
    warnings: list[str]

    @property
    def hashes(self) -> dict[str, str]:
        """Hash of each component of the model; large files are read by the first run only."""
        return model_hashes(self.folder)

    @property
    def is_clip(self) -> bool:
        """Whether the model makes one clip from one text, as public CogVideoX, not segments."""
        return not makes_segments(self.transformer, self.about)

    @property
    def seconds(self) -> float:
        """Length of the video; a clip's first frame is not counted, as in `--seconds`."""
        return (self.frames - 1) / self.fps

    @property
    def front_frames(self) -> int:
        """Latent frames before the clip that fill its first patch in time; dropped at the end."""
        return -self.latent_shape[0] % int(self.transformer.get("patch_size_t") or 1)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Frames, channels, height, width of what is decoded."""
        time, space = compression(self.vae)
        frames = (self.frames - 1) // time + 1
        channels = int(self.vae["latent_channels"])
        return frames, channels, self.height // space, self.width // space

    @cached_property
    def image_hash(self) -> str:
        """The sha256 of the first frame's file."""
        assert self.config.image is not None
        return sha256_file(self.config.image)

    def identity(self) -> dict[str, Any]:
        """Everything that decides what the video shows."""
        chosen = {k: value for k, value in self._settings().items() if k not in _SETTLED}
        if self.config.image is not None:
            chosen["image"] = self.image_hash
        return {
            **chosen,
            "model": self.hashes,
            "texts": self.board.prompts,
            "negatives": self.board.negatives,
            "text_tokens": self.tokens,
            "size": f"{self.width}x{self.height}",
            "frames": self.frames,
            "fps": self.fps,
        }

    def again(self) -> dict[str, Any]:
        """The settings that make this video once more, for its sidecar.

        A text that holds for the whole video is among them; a storyboard is kept beside them.
        """
        built_in = self.config.model in model_folder.builtin_names()
        settings = self._settings()
        settings.pop("storyboard")
        if self.is_clip:
            settings |= {"seconds": None, "frames": self.frames, "fps": self.fps}
        elif self.config.storyboard is None:
            settings |= {"seconds": self.board.seconds}
        if self.config.storyboard is None:
            settings |= {"prompt": self.board.segments[0].text}
        if self.config.image is not None:
            image = self.config.image.resolve()
            settings |= {"image": image.as_posix(), "image_hash": self.image_hash}
        settings |= {
            "size": f"{self.width}x{self.height}",
            "model": self.config.model if built_in else str(self.folder.resolve()),
            "model_hash": settings_hash(self.hashes),
        }
        return {name: value for name, value in settings.items() if value is not None}

    def _settings(self) -> dict[str, Any]:
        values = plain(self.config)
        return {name: value for name, value in values.items() if name not in _NOT_OF_THE_VIDEO}


def model_hashes(folder: Path) -> dict[str, str]:
    """Hash of each component of a model."""
    return {name: model_folder.component_hash(folder, name) for name in _HASHED}


def bytes_to_hash(folder: Path) -> int:
    """What `model_hashes` has to read of a model that no earlier run hashed."""
    files = [path for name in _HASHED for path in model_folder.component_files(folder, name)]
    return sum(map(bytes_to_read, files))


def check(config: "SampleConfig") -> Request:
    """Settle every setting and refuse what cannot work; loads no weights.

    Raises:
        UsageError: sizes, lengths or settings that do not fit the model.
        ArtifactError: model, storyboard or image missing or broken, another model or image than
            `model_hash` or `image_hash` names, a text over the token budget.
    """
    folder = model_folder.resolve_model(config.model)
    transformer = model_folder.read_config(folder, "transformer")
    vae = model_folder.read_config(folder, "vae")
    about = model_folder.read_about(folder)
    preferred = {k: about.get("sample", {}).get(k, value) for k, value in DEFAULTS.items()}
    preferred["null_text"] = about.get("null_text", "empty")
    config = dataclasses.replace(
        config, **{k: value for k, value in preferred.items() if getattr(config, k) is None}
    )
    _check_sampler(str(config.sampler))
    config = dataclasses.replace(config, dtype=choose_dtype(config.dtype, folder, config.device))
    _check_model(folder, config.model_hash)
    length = settle_length(config, transformer, about)
    width, height = settle_size(config.size, transformer, compression(vae)[1])
    request = Request(
        config=config,
        folder=folder,
        board=length.board,
        width=width,
        height=height,
        frames=length.frames,
        fps=length.fps,
        tokens=config.text_tokens or int(transformer.get("max_text_seq_length", 226)),
        transformer=transformer,
        vae=vae,
        about=about,
        warnings=length.warnings,
    )
    check_fit(request)
    image_size = check_image(config.image, config.image_hash) if config.image else None
    warnings = request.warnings + fit_warnings(request, image_size)
    return settle_texts(dataclasses.replace(request, warnings=warnings))


def _check_sampler(name: str) -> None:
    if name not in catalog.SAMPLERS:  # asked here without importing it, which imports torch
        raise UsageError(f"there is no sampler {name!r}", fix=nearest(name, catalog.SAMPLERS))


def _check_model(folder: Path, expected: str) -> None:
    if expected and settings_hash(model_hashes(folder)) != expected:
        found = settings_hash(model_hashes(folder))
        raise ArtifactError(
            f"stale: the model is {found}, the video was made with {expected}",
            where=str(folder),
            fix='name the model it was made with, or take this one with --set model_hash=""',
        )
