"""Where sources are encoded: in this process with decoders beside it, or on a Ray cluster.

An engine is a function with the arguments of `encode_locally`. Whatever it is, the same sources
give the same files; it only decides where and in which order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttvcli.core.video.clip_stream import Broken
from ttvcli.errors import UsageError, WorkFailed
from ttvcli.workflows.decode_pool import open_decoder
from ttvcli.workflows.decode_worker import DecodeTask
from ttvcli.workflows.encode_job import Job
from ttvcli.workflows.encode_records import Clip
from ttvcli.workflows.encode_source import Encoder, Hooks, SourceEncoder, SourceState

_LARGEST_BATCH = 16
_TRIES = 3  # machines of a cluster come and go


@dataclass(frozen=True)
class Item:
    """A source to encode."""

    task: DecodeTask
    state: SourceState


def encode_locally(
    job: Job, folder: Path, items: Sequence[Item], load: Callable[[Job], Encoder], hooks: Hooks
) -> None:
    """Encode sources in this process, decoded ahead by `job.workers` others."""
    encoder = SourceEncoder(job, folder, load, hooks)
    with open_decoder([item.task for item in items], job.workers) as decoder:
        while (stream := decoder.ready()) is not None:
            encoder.step(items[stream.index].state, stream)


@dataclass(frozen=True)
class _Sent:
    """What an actor made of a source."""

    clips: list[Clip]
    broken: Broken | None
    voided: bool  # the clips of earlier runs were worth nothing


def encode_batch(
    job: Job, folder: Path, items: Sequence[Item], load: Callable[[Job], Encoder]
) -> list[_Sent]:
    """Encode sources on another machine: what an actor does."""
    clips: dict[str, list[Clip]] = {item.state.digest: [] for item in items}
    voided: set[str] = set()

    def void(state: SourceState) -> None:
        clips[state.digest].clear()
        voided.add(state.digest)

    hooks = Hooks(lambda state, clip: clips[state.digest].append(clip), void, lambda frames: None)
    encode_locally(job, folder, items, load, hooks)
    return [
        _Sent(clips[item.state.digest], item.state.broken, item.state.digest in voided)
        for item in items
    ]


def encode_with_ray(
    job: Job, folder: Path, items: Sequence[Item], load: Callable[[Job], Encoder], hooks: Hooks
) -> None:
    """Encode sources on the cluster that RAY_ADDRESS names, or on this machine.

    Every node needs the sources, the model and the output under the same paths. Only paths and
    records go through Ray, never pixels.

    Raises:
        UsageError: Ray is not installed.
        WorkFailed: a batch was lost several times.
    """
    ray = _ray()
    if not items:
        return
    began = not ray.is_initialized()
    if began:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        # Processes of the cluster do not share this one's working folder.
        there = [replace(item, task=_absolute(item.task)) for item in items]
        job = replace(job, model=job.model.absolute())
        _spread(ray, job, folder.absolute(), there, load, hooks)
    finally:
        if began:
            ray.shutdown()


def _absolute(task: DecodeTask) -> DecodeTask:
    return replace(task, path=task.path.absolute())


def _spread(
    ray: Any,
    job: Job,
    folder: Path,
    items: Sequence[Item],
    load: Callable[[Job], Encoder],
    hooks: Hooks,
) -> None:
    gpus = 0 if job.config.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    there = gpus or len(ray.nodes())
    actors = max(min(job.config.actors or there, len(items)), 1)
    size = min(max(len(items) // (4 * actors), 1), _LARGEST_BATCH)
    batches = [list(items[first : first + size]) for first in range(0, len(items), size)]
    actor = ray.remote(num_gpus=1 if gpus else 0, num_cpus=1)(_Actor)
    idle = [actor.remote(job, folder, load) for _ in range(actors)]
    tries = [0] * len(batches)
    waiting, running = list(range(len(batches)))[::-1], dict[Any, tuple[int, Any]]()
    while waiting or running:
        while waiting and idle:
            number, worker = waiting.pop(), idle.pop()
            running[worker.encode.remote(batches[number])] = number, worker
        (done,), _ = ray.wait(list(running), num_returns=1)
        number, worker = running.pop(done)
        try:
            results = ray.get(done)
        except ray.exceptions.RayActorError as error:
            tries[number] += 1
            if tries[number] == _TRIES:
                names = ", ".join(str(item.task.path) for item in batches[number][:3])
                raise WorkFailed(
                    f"an encoder on the cluster died {_TRIES} times: {error}",
                    where=names,
                    fix="the same command continues with what is left",
                ) from error
            waiting.append(number)
            idle.append(actor.remote(job, folder, load))
            continue
        idle.append(worker)
        _take(batches[number], results, job, hooks)


def _take(batch: list[Item], results: list[_Sent], job: Job, hooks: Hooks) -> None:
    for item, sent in zip(batch, results, strict=True):
        state = item.state
        if sent.voided:
            hooks.void(state)
            state.old = {}
        state.broken = sent.broken
        for clip in sent.clips:
            state.new[clip.clip] = clip
            hooks.add(state, clip)
            hooks.advance(job.config.frames)


class _Actor:
    """Keeps the encoder of one process of the cluster between batches."""

    def __init__(self, job: Job, folder: Path, load: Callable[[Job], Encoder]) -> None:
        self._job, self._folder, self._load = job, folder, load
        self._encoder: Encoder | None = None

    def encode(self, items: list[Item]) -> list[_Sent]:
        """Encode a batch."""
        return encode_batch(self._job, self._folder, items, self._kept)

    def _kept(self, job: Job) -> Encoder:
        if self._encoder is None:
            self._encoder = self._load(job)
        return self._encoder


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"Ray cannot be imported: {error}", fix="pip install 'ttv[ray]', or --engine local"
        ) from error
    return ray


ENGINES: dict[str, Callable[..., None]] = {"local": encode_locally, "ray": encode_with_ray}
