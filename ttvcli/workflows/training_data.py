"""Where training batches come from: pixels, latents with text, or labelled captions.

A source answers `batch(indices, generator)`; which clips step `s` uses depends on the seed and the
step alone, so a resumed run reads on where the stopped one would have.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ttvcli.artifacts.embeddings import EMPTY_NAME, load_embeddings
from ttvcli.artifacts.latents import load_latents
from ttvcli.artifacts.manifest import read_manifest
from ttvcli.artifacts.schema import HEADER_NAME, read_header
from ttvcli.core.training.objectives import LatentBatch, sample_posterior
from ttvcli.core.video.decode import read_frames
from ttvcli.core.video.errors import UnreadableVideo
from ttvcli.errors import ArtifactError, UsageError, counted
from ttvcli.workflows.text_sources import prompts_of

LATENTS_PER_SEGMENT = 12  # 48 pixel frames; the first latent of a clip stands for one frame more
_CAPTIONS = 1 << 20  # different captions of one pass; each is drawn from its number


class Source(Protocol):
    """A set of clips that can be read by index."""

    def __len__(self) -> int:
        """Number of clips."""

    def batch(self, indices: list[int], generator: torch.Generator) -> Any:
        """The batch of these clips; `generator` draws crops and posterior noise."""


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> list[int]:
    """Indices of one step of an endless stream of shuffled passes over `count` clips."""
    chosen = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, count)
        chosen.append(int(_order(seed, epoch, count)[place]))
    return chosen


@lru_cache(maxsize=2)  # a batch may straddle two passes
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def kept_records(folder: Path, what: str) -> list[dict[str, Any]]:
    """The manifest's records that are not marked `keep: false`.

    Raises:
        ArtifactError: there are none.
    """
    records = [record for record in read_manifest(folder) if record.get("keep", True)]
    if not records:
        raise ArtifactError(f"no {what} to train on", where=str(folder), fix=_FIX[what])
    return records


_FIX = {
    "clips": "make some with `ttv prep synth --out raw/`",
    "latents": "make some with `ttv prep encode raw/ --out latents/`",
}


class PixelClips:
    """Videos named by a manifest, cut to `frames` at a random place; [B, 3, T, H, W] in [-1, 1].

    Decoded clips are kept up to `cache_bytes`: at training size they are small, and each is read
    many times.
    """

    def __init__(self, folder: Path, frames: int, cache_bytes: int = 0) -> None:
        self.folder = folder
        self.frames = frames
        self.room = cache_bytes
        self.cache: dict[int, np.ndarray] = {}
        self.records = kept_records(folder, "clips")
        known = ("path", "sha256", "width", "height", "frames")
        lacking = [name for name in known if any(name not in r for r in self.records)]
        if lacking:
            raise ArtifactError(
                f"the manifest does not say {', '.join(lacking)} of every clip",
                where=str(folder),
                fix="use the folder that `ttv prep synth` wrote",
            )
        sizes = {(r["width"], r["height"]) for r in self.records}
        if len(sizes) > 1:
            raise ArtifactError(
                f"videos of {len(sizes)} sizes cannot share a batch", where=str(folder)
            )
        short = [r["id"] for r in self.records if r["frames"] < frames]
        if short:
            raise ArtifactError(
                f"{counted(len(short), 'video')} shorter than clip_frames {frames}, "
                f"such as {short[0]}",
                where=str(folder),
            )

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, indices: list[int], generator: torch.Generator) -> Tensor:
        clips = []
        for index in indices:
            room = self.records[index]["frames"] - self.frames
            start = int(torch.randint(room + 1, (1,), generator=generator))
            clips.append(self._cut(index, start))
        video = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)
        return video.float() / 127.5 - 1.0

    def _cut(self, index: int, start: int) -> np.ndarray:
        """Frames start..start+frames of a clip, uint8 [T, H, W, 3]."""
        stop = start + self.frames
        if index in self.cache:
            return self.cache[index][start:stop]
        path = self.folder / self.records[index]["path"]
        size = self.records[index]["width"] * self.records[index]["height"] * 3
        size *= self.records[index]["frames"]
        if size > self.room:
            return self._decode(path, start, stop)
        self.cache[index] = self._decode(path, 0, self.records[index]["frames"])
        self.room -= self.cache[index].nbytes
        return self.cache[index][start:stop]

    def _decode(self, path: Path, start: int, stop: int) -> np.ndarray:
        """Frames start..stop of a video; ArtifactError if it cannot be read or is too short."""
        try:
            frames = [frame for _, frame in islice(read_frames(path), start, stop)]
        except UnreadableVideo as error:
            raise ArtifactError(f"cannot be read: {error}", where=str(path)) from error
        if len(frames) != stop - start:
            raise ArtifactError(
                f"ends after {start + len(frames)} frames, the manifest says more",
                where=str(path),
                fix="run the step that made the clips again",
            )
        return np.stack(frames)


class LatentClips:
    """Encoded clips with their text; draws from the posterior and scales.

    Args:
        latents: folder of `ttv prep encode`. text: folder of `ttv embed-text`.
        scaling_factor: of the VAE that made the latents.
        latent_frames: train on this many frames from the start of each clip, and on the texts of
            their segments; 0 takes all. The first frames of a clip do not depend on later ones,
            so no encoding is needed.
        anywhere: take those frames from a random place of a random segment instead.
        cache_bytes: memory for clips already read.
        vae_hash, text_encoder_hash: of the model being trained.

    Raises:
        ArtifactError: no clips, clips without text, or made with another VAE or text encoder.
    """

    def __init__(
        self,
        latents: Path,
        text: Path,
        *,
        scaling_factor: float,
        vae_hash: str,
        text_encoder_hash: str,
        latent_frames: int = 0,
        anywhere: bool = False,
        cache_bytes: int = 0,
    ) -> None:
        if anywhere and not 1 <= latent_frames <= LATENTS_PER_SEGMENT + 1:
            raise UsageError(
                f"windows from anywhere lie within a segment of 3 s, got {latent_frames} latents",
                fix="--set frames=17, or any other 4k+1 up to 49",
            )
        self.anywhere = anywhere
        self.room = cache_bytes
        self.cache: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.latent_frames = latent_frames
        self.latents = latents
        self.text = text
        self.scaling_factor = scaling_factor
        self.hashes = {"vae": vae_hash, "text encoder": text_encoder_hash}
        self.records = kept_records(latents, "latents")
        self._check_folder(latents, "latents", "vae", "vae")
        self._check_folder(text, "embeddings", "text encoder", "encoder_hash")
        texts = {record["id"]: record for record in read_manifest(text)}
        missing = [r["id"] for r in self.records if r["id"] not in texts]
        if missing:
            raise ArtifactError(
                f"{counted(len(missing), 'clip')} without a text embedding, such as {missing[0]}",
                where=str(text),
                fix=f"run `ttv embed-text {latents} --out {text}` again",
            )
        self.text_paths = {key: texts[key]["path"] for key in texts}
        old = [r["id"] for r in self.records if prompts_of(r) != prompts_of(texts[r["id"]])]
        self.warnings: list[str] = []
        if old:
            self.warnings.append(
                f"{counted(len(old), 'clip')} with other captions in {latents} than in {text}, "
                f"such as {old[0]}: those of {text} are used (`ttv embed-text` updates it)"
            )

    def __len__(self) -> int:
        return len(self.records)

    def null_text(self) -> Tensor:
        """The embedding [S, L, E] of the empty prompt."""
        path = self.text / EMPTY_NAME
        embedded, _, about = load_embeddings(path)
        self._check("text encoder", about.get("encoder_hash"), path)
        return embedded

    def batch(self, indices: list[int], generator: torch.Generator) -> LatentBatch:
        latents, text = [], []
        for index in indices:
            mean, logvar, embedded = self._window(*self._load(index), generator)
            drawn = sample_posterior(mean.float(), logvar.float(), generator)
            latents.append(drawn.transpose(0, 1) * self.scaling_factor)
            text.append(embedded.float())
        shapes = {tuple(t.shape) for t in latents} | {tuple(t.shape) for t in text}
        if len(shapes) > 2:
            raise ArtifactError(
                f"clips of different sizes or lengths cannot share a batch: {sorted(shapes)}",
                where=str(self.latents),
                fix="encode them into folders of their own, one for each stage",
            )
        return LatentBatch(torch.stack(latents), torch.stack(text))

    def _window(
        self, mean: Tensor, logvar: Tensor, embedded: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """With `anywhere` the frames and the text of a random window, else all that was loaded."""
        if not self.anywhere:
            return mean, logvar, embedded
        segment = int(torch.randint(len(embedded), (), generator=generator))
        first = LATENTS_PER_SEGMENT * segment
        free = min(LATENTS_PER_SEGMENT + 1, mean.shape[1] - first) - self.latent_frames
        first += int(torch.randint(free + 1, (), generator=generator))
        frames = slice(first, first + self.latent_frames)
        return mean[:, frames], logvar[:, frames], embedded[segment : segment + 1]

    def _load(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-variance [C, T, H, W] and text [S, L, E] of a clip, checked for age."""
        if index in self.cache:
            return self.cache[index]
        record = self.records[index]
        path = self.latents / record["path"]
        mean, logvar, about = load_latents(path)
        self._check("vae", about.get("vae_hash"), path)
        frames = mean.shape[1] if self.anywhere else self.latent_frames or mean.shape[1]
        text_path = self.text / self.text_paths[record["id"]]
        embedded, _, about = load_embeddings(text_path)
        self._check("text encoder", about.get("encoder_hash"), text_path)
        if max(frames, self.latent_frames) > mean.shape[1]:
            raise ArtifactError(
                f"has {mean.shape[1]} latent frames, the run needs {self.latent_frames}",
                where=str(path),
                fix="lower --set frames, or encode longer clips",
            )
        segments = _segments(frames, path)
        if segments > len(embedded):
            raise ArtifactError(
                f"has {len(embedded)} texts, {frames} latent frames need {segments}",
                where=str(text_path),
                fix="run `ttv embed-text` again",
            )
        loaded = (mean[:, :frames].clone(), logvar[:, :frames].clone(), embedded[:segments].clone())
        size = sum(tensor.nbytes for tensor in loaded)
        if size <= self.room:
            self.cache[index] = loaded
            self.room -= size
        return loaded

    def _check_folder(self, folder: Path, kind: str, name: str, key: str) -> None:
        """Compare what a whole folder was made with, where it says so, before any step is done."""
        if not (folder / HEADER_NAME).is_file():
            return
        about = read_header(folder)
        if about.get("kind") != kind:
            raise ArtifactError(
                f"the folder holds {about.get('kind')}, not {kind}",
                where=str(folder),
                fix="--data takes what `ttv prep encode` wrote, --text what `ttv embed-text` wrote",
            )
        self._check(name, about.get("made_from", {}).get(key), folder)

    def _check(self, name: str, found: str | None, path: Path) -> None:
        if found != self.hashes[name]:
            raise ArtifactError(
                f"stale: made with {name} {found}, the model has {self.hashes[name]}",
                where=str(path),
                fix="run `ttv prep encode` and `ttv embed-text` again with this --model",
            )


def _segments(latent_frames: int, path: Path) -> int:
    """Text segments of a clip; a clip of several segments has whole ones."""
    count = max(1, -(-(latent_frames - 1) // LATENTS_PER_SEGMENT))
    if count > 1 and latent_frames != LATENTS_PER_SEGMENT * count + 1:
        raise ArtifactError(
            f"{latent_frames} latent frames are not a multiple of 3 s, which several segments need",
            where=str(path),
            fix="train on at most 49 frames (3 s), or on 145, 289, 481 or 1009",
        )
    return count


class LabelledCaptions:
    """Fresh captions of the tiny world with the attributes they describe."""

    def __init__(self, tokenize: Callable[[str], list[int]]) -> None:
        from ttvcli.core.world.labels import caption_labels

        self.tokenize = tokenize
        self.make = caption_labels

    def __len__(self) -> int:
        return _CAPTIONS

    def batch(self, indices: list[int], generator: torch.Generator) -> dict[str, Any]:
        ids, labels = [], []
        for index in indices:
            caption, about = self.make(np.random.default_rng(index))
            ids.append(self.tokenize(caption))
            labels.append(about)
        names = labels[0]
        return {
            "ids": torch.tensor(ids),
            "labels": {name: torch.tensor([label[name] for label in labels]) for name in names},
        }


def prefetch(make: Callable[[int], Any], first: int, last: int, ahead: int = 2) -> Iterator[Any]:
    """Yield `make(step)` for each step in order, computed in a thread up to `ahead` steps early."""
    done: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def hand_over(good: bool, item: Any) -> None:
        while not stop.is_set():
            try:
                return done.put((good, item), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in range(first, last):
                hand_over(True, make(step))
                if stop.is_set():
                    return
        except BaseException as error:  # the reader raises it
            hand_over(False, error)

    threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(first, last):
            good, item = done.get()
            if not good:
                raise item
            yield item
    finally:
        stop.set()


def require_folder(path: Path | None, flag: str) -> Path:
    """The path of a needed input; UsageError naming the flag when it was not given."""
    if path is None:
        raise UsageError(f"{flag} is needed for this target", fix=f"add {flag} FOLDER")
    return path
