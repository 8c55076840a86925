"""The dataset of TTT-Video as our folders of latents and text embeddings.

Shape legend: C latent channels, T latent frames, H W latent size, L tokens, D text width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttvcli.artifacts import model_folder
from ttvcli.artifacts.atomic import sha256_file, write_json
from ttvcli.artifacts.embeddings import EMPTY_NAME, save_embeddings
from ttvcli.artifacts.latents import save_latents
from ttvcli.artifacts.manifest import MANIFEST_NAME, write_manifest
from ttvcli.artifacts.schema import HEADER_NAME, header, settings_hash
from ttvcli.artifacts.torch_file import read_torch
from ttvcli.core.models.cogvideox.published import SEGMENT_FPS
from ttvcli.errors import ArtifactError, UsageError, counted
from ttvcli.workflows import components
from ttvcli.workflows.export import ExportConfig
from ttvcli.workflows.step import Progress
from ttvcli.workflows.training_data import LATENTS_PER_SEGMENT


@dataclass(frozen=True)
class Clip:
    """One line of the dataset, its paths found."""

    id: str
    video: Path
    texts: list[Path]


@dataclass(frozen=True)
class DatasetImport:
    """A checked dataset, and the model whose VAE and text encoder made it."""

    source: Path
    model: Path
    clips: list[Clip]
    vae: dict[str, Any]

    @classmethod
    def check(cls, config: ExportConfig) -> "DatasetImport":
        """Find every file of a dataset.

        Raises:
            UsageError: no `--base`.
            ArtifactError: a line or a file is missing or broken.
        """
        source = Path(config.source)
        if not config.base:
            raise UsageError(
                "the dataset does not say whose latents and text it holds",
                where=config.source,
                fix="--base with the model folder whose VAE and text encoder made it",
            )
        model = model_folder.resolve_model(config.base)
        clips = _clips(source)
        lost = [p for clip in clips for p in (clip.video, *clip.texts) if not p.is_file()]
        if lost:
            raise ArtifactError(
                f"{counted(len(lost), 'missing file')}, such as {lost[0]}",
                where=str(source),
                fix="paths are absolute, or relative to the folder of the JSONL",
            )
        return cls(source, model, clips, model_folder.read_config(model, "vae"))

    @property
    def files(self) -> list[Path]:
        """Every `.pt` file of it."""
        return [path for clip in self.clips for path in (clip.video, *clip.texts)]

    def hashes(self) -> dict[str, str]:
        """Hashes of the components of the model that the dataset was made with."""
        names = {"vae_hash": "vae", "encoder_hash": "text_encoder", "tokenizer_hash": "tokenizer"}
        return {key: model_folder.component_hash(self.model, name) for key, name in names.items()}

    def identity(self) -> dict[str, Any]:
        """What the result depends on."""
        content = model_folder.hash_of_files([self.source, *self.files])
        return {"format": "ttv", "source": content, **self.hashes()}

    def write(self, folder: Path, progress: Progress) -> None:
        """Write `latents/` and `text/`.

        Raises:
            ArtifactError: a tensor has another shape than the model and the clip's length ask for.
        """
        progress.start("importing", total=len(self.clips), unit="clips")
        hashes, records, widths = self.hashes(), [], set()
        settings = {"step": "export", "vae_hash": hashes["vae_hash"], "fps": str(SEGMENT_FPS)}
        for clip in self.clips:
            mean, logvar = self._latents(clip)
            records.append(self._write_latents(folder, clip, mean, logvar, settings))
            widths.add(self._write_text(folder, clip, hashes))
            progress.advance()
        if len(widths) > 1:
            raise ArtifactError(
                f"texts of different shapes [L, D]: {sorted(widths)}", where=str(self.source)
            )
        write_manifest(folder / "latents" / MANIFEST_NAME, records)
        made_from = {"vae": hashes["vae_hash"]}
        write_json(folder / "latents" / HEADER_NAME, header("latents", settings, made_from))
        self._finish_text(folder / "text", records, hashes, next(iter(widths)))
        progress.finish()

    def _latents(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """Mean and log-variance `[C, T, H, W]` of a clip."""
        channels = int(self.vae.get("latent_channels", 16))
        found = read_torch(clip.video)
        frames = LATENTS_PER_SEGMENT * len(clip.texts) + 1
        if not isinstance(found, Tensor) or found.ndim != 4 or found.shape[1] != 2 * channels:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ArtifactError(
                f"expected latents [T, {2 * channels}, H, W], found {shape}", where=str(clip.video)
            )
        if len(found) != frames:
            raise ArtifactError(
                f"{counted(len(found), 'latent frame')} where {frames} belong with "
                f"{counted(len(clip.texts), 'text')} of 3 s",
                where=str(clip.video),
            )
        mean, logvar = found.transpose(0, 1).chunk(2)
        return mean, logvar

    def _write_latents(
        self,
        folder: Path,
        clip: Clip,
        mean: Tensor,
        logvar: Tensor,
        settings: dict[str, Any],
    ) -> dict[str, Any]:
        path = folder / "latents" / f"{clip.id}.safetensors"
        time = int(self.vae.get("temporal_compression_ratio", 4))
        space = 2 ** (len(self.vae["block_out_channels"]) - 1)
        facts = {
            "fps": SEGMENT_FPS,
            "width": mean.shape[3] * space,
            "height": mean.shape[2] * space,
            "frames": (mean.shape[1] - 1) * time + 1,
            "source_sha256": sha256_file(clip.video),
        }
        about = {
            **facts,
            "settings_hash": settings_hash(settings),
            "vae": "AutoencoderKLCogVideoX",
            "vae_hash": settings["vae_hash"],
        }
        save_latents(path, mean, logvar, about)
        return {
            "id": clip.id,
            "path": path.name,
            "sha256": sha256_file(path),
            **facts,
            "duration": round(facts["frames"] / SEGMENT_FPS, 6),
            "keep": True,
            "segments": [
                {"start": 3 * i, "end": 3 * i + 3, "caption": ""} for i in range(len(clip.texts))
            ],
            "source": str(clip.video),
        }

    def _write_text(self, folder: Path, clip: Clip, hashes: dict[str, str]) -> tuple[int, int]:
        """Write the embeddings of a clip; returns (L, D)."""
        found = [read_torch(path) for path in clip.texts]
        width = int(model_folder.read_config(self.model, "text_encoder")["d_model"])
        for path, tensor in zip(clip.texts, found, strict=True):
            if not isinstance(tensor, Tensor) or tensor.ndim != 2 or tensor.shape[1] != width:
                raise ArtifactError(f"expected text [L, {width}]", where=str(path))
            if tensor.shape != found[0].shape:
                raise ArtifactError("texts of one clip differ in length", where=str(path))
        embeddings = torch.stack(found)
        path = folder / "text" / f"{clip.id}.safetensors"
        save_embeddings(path, embeddings, *_of_texts(embeddings, hashes))
        return int(embeddings.shape[1]), width

    def _finish_text(
        self, folder: Path, records: list[dict[str, Any]], hashes: dict[str, str], shape: Any
    ) -> None:
        """Write the empty prompt, the manifest and the header of the embeddings."""
        tokens = int(shape[0])
        encoder = components.load(self.model, "text_encoder")
        ids = components.load_tokenizer(self.model).encode("", tokens)
        with torch.inference_mode():
            empty = encoder(torch.tensor([ids]))
        save_embeddings(folder / EMPTY_NAME, empty, *_of_texts(empty, hashes))
        changed = [
            {
                **record,
                "sha256": sha256_file(folder / record["path"]),
                "lengths": [tokens] * len(record["segments"]),
            }
            for record in records
        ]
        write_manifest(folder / MANIFEST_NAME, changed)
        settings = {"step": "export", "max_tokens": tokens}
        made_from = {key: hashes[key] for key in ("encoder_hash", "tokenizer_hash")}
        write_json(folder / HEADER_NAME, header("embeddings", {**settings, **made_from}, made_from))


def _of_texts(embeddings: Tensor, hashes: dict[str, str]) -> tuple[Tensor, dict[str, Any]]:
    """Lengths and metadata of embeddings whose texts are not known."""
    count, tokens = embeddings.shape[:2]
    settings = {"step": "export", "max_tokens": tokens}
    about = {
        "settings_hash": settings_hash(settings),
        "encoder": "T5EncoderModel",
        "encoder_hash": hashes["encoder_hash"],
        "tokenizer_hash": hashes["tokenizer_hash"],
        "max_tokens": tokens,
        "captions": [""] * count,
    }
    return torch.full((count,), tokens), about


def _clips(source: Path) -> list[Clip]:
    clips: dict[str, Clip] = {}
    for number, line in enumerate(source.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            video, texts = str(value["vid_emb"]), [str(text) for text in value["text_chunk_emb"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"line {number} has no vid_emb and text_chunk_emb: {error}", where=str(source)
            ) from None
        if not texts:
            raise ArtifactError(f"line {number} has no texts", where=str(source))
        name = _id(video, clips)
        clips[name] = Clip(name, source.parent / video, [source.parent / text for text in texts])
    if not clips:
        raise ArtifactError("the dataset is empty", where=str(source))
    return list(clips.values())


def _id(video: str, taken: dict[str, Clip]) -> str:
    """The file's name; with its folder where another clip has that name."""
    path = Path(video)
    name = path.stem if path.stem not in taken else f"{path.parent.name}-{path.stem}"
    if name in taken:
        raise ArtifactError(f"two clips are called {name}", where=video)
    return name
