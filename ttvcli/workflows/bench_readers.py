"""Sides of `ttv bench data`: ways to get the frames of videos, each run in a process of its own.

The process gets a `Reading` as JSON in its argument and answers with one line of JSON. A side that
converts gives uint8 RGB of one size: scaled to cover it, then cut to it around the centre. All of
them do the same work: they average areas to shrink, interpolate cubically to enlarge, and use no
more threads than the row has.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ttvcli.workflows import process_memory

Frame = Any  # uint8 [H, W, 3], or whatever a side decodes to


@dataclass(frozen=True)
class Reading:
    """What a process is to read, and how."""

    side: str
    paths: list[str]
    width: int
    height: int
    threads: int
    keep: str = ""  # .npy file for the frames of the first video that `kept` names
    kept: tuple[int, ...] = ()
    warm: str = ""  # video that is read before the clock starts: what loads late is loaded then


@dataclass(frozen=True)
class Ready:
    """What our sides give before their frames: all is loaded, and their processes have started."""

    cpu_seconds: float  # that those processes have used so far


def ttv(reading: Reading) -> Iterator[Frame]:
    """The stage of `prep encode` before its VAE, at the frame rate of each video.

    One thread is this process; with more, as many processes decode ahead of it.
    """
    from ttvcli.core.video.clip_stream import Frames
    from ttvcli.workflows.decode_pool import open_decoder

    tasks = [_task(path, reading.width, reading.height) for path in reading.paths]
    decoder = open_decoder(tasks, 0 if reading.threads == 1 else reading.threads)
    yield Ready(decoder.prepare())
    with decoder:
        while (stream := decoder.ready()) is not None:
            event = stream.take()
            if isinstance(event, Frames):
                yield from event.pictures


def _task(path: str, width: int, height: int) -> Any:
    """What `prep encode` would decode of a video, once it has looked at it."""
    from ttvcli.core.video.decode import probe
    from ttvcli.workflows.decode_worker import DecodeTask

    info = probe(path)
    fps = info.fps or Fraction(24)
    total = round((info.duration or 1) * fps)
    # The length of clip that leaves out fewest frames, as the others leave out none.
    frames = min(range(9, min(max(total, 9), 97) + 1, 8), key=lambda f: (total % f, -f))
    return DecodeTask(Path(path), (width, height), fps, frames)


def filters(reading: Reading) -> Iterator[Frame]:
    """One pass of `prep filter` with its default filters.

    One thread is this process; with more, as many processes take a video each, as the command does.
    """
    if reading.threads == 1:
        filtered = _default_filters()
        yield Ready(0.0)
        for path in reading.paths:
            yield from range(filtered(path))
        return
    from ttvcli.workflows.process_pool import ProcessPool

    with ProcessPool(_filter_or_tell, reading.threads, patience=3600.0) as pool:
        started = list(pool.map([""] * reading.threads))  # one for each process
        yield Ready(sum(message.value for message in started))
        for message in pool.map(reading.paths):
            if message.kind != "done":
                raise RuntimeError(f"{message.item}: {message.kind}: {message.value}")
            yield from range(message.value)


def _default_filters() -> Callable[[str], int]:
    """Load what filters a video and returns its number of frames."""
    from ttvcli import catalog
    from ttvcli.core.filters.decode_pass import measure

    every = [catalog.get("filter", name) for name in catalog.FILTERS]
    chosen = [f for f in every if f.default and not (f.missing is not None and f.missing())]
    return lambda path: measure(path, chosen).clip.frames


def _filter_or_tell(path: str, beat: Callable[[Any], None]) -> float:
    """Frames of a video that was filtered; without one, the CPU seconds of this process so far."""
    filtered = _default_filters()
    return filtered(path) if path else time.process_time()


def pyav_decode(reading: Reading) -> Iterator[Frame]:
    """PyAV, frames left as they come."""
    import av

    for path in reading.paths:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO" if reading.threads > 1 else "NONE"
            stream.codec_context.thread_count = reading.threads
            yield from container.decode(stream)


def pyav(reading: Reading) -> Iterator[Frame]:
    """PyAV, scaled and converted by swscale in one step, without flags for exactness."""
    for scaled in _scaled(reading, "rgb24"):
        yield _centre(scaled.to_ndarray(), reading)


def pyav_planes(reading: Reading) -> Iterator[Frame]:
    """PyAV like that, to planes of red, green and blue, which take swscale half the time."""
    for scaled in _scaled(reading, "gbrp"):
        planes = np.empty((3, reading.height, reading.width), np.uint8)
        for plane, stored in zip(planes, (2, 0, 1), strict=True):
            rows = np.frombuffer(scaled.planes[stored], np.uint8).reshape(scaled.height, -1)
            plane[...] = _middle(rows[:, : scaled.width], reading)
        yield planes.transpose(1, 2, 0)


def _scaled(reading: Reading, form: str) -> Iterator[Any]:
    from av.video.reformatter import Interpolation, VideoReformatter

    scaler = VideoReformatter()
    for frame in pyav_decode(reading):
        width, height = _cover(frame.width, frame.height, reading)
        yield scaler.reformat(
            frame,
            width=width,
            height=height,
            format=form,
            interpolation=Interpolation.BICUBIC if width > frame.width else Interpolation.AREA,
            threads=reading.threads,
        )


def pyav_small(reading: Reading) -> Iterator[Frame]:
    """PyAV, the luma of each frame in the size that filters look at."""
    from av.video.reformatter import Interpolation, VideoReformatter

    from ttvcli.core.filters.frame_view import SMALL_WIDTH

    scaler = VideoReformatter()
    for frame in pyav_decode(reading):
        scale = SMALL_WIDTH / max(frame.width, frame.height)
        width, height = round(frame.width * scale), round(frame.height * scale)
        small = scaler.reformat(
            frame,
            width=width,
            height=height,
            format="gray",
            interpolation=Interpolation.AREA,
            threads=reading.threads,
        )
        yield small.to_ndarray()


def opencv_decode(reading: Reading) -> Iterator[Frame]:
    """OpenCV, BGR in the size of the video."""
    import cv2

    cv2.setNumThreads(reading.threads)
    for path in reading.paths:
        threads = [cv2.CAP_PROP_N_THREADS, reading.threads]
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, threads)
        while True:
            there, frame = capture.read()
            if not there:
                break
            yield frame
        capture.release()


def opencv(reading: Reading) -> Iterator[Frame]:
    """OpenCV, scaled down by area averaging or up by cubic interpolation, in RGB."""
    import cv2

    for frame in opencv_decode(reading):
        size = _cover(frame.shape[1], frame.shape[0], reading)
        method = cv2.INTER_CUBIC if size[0] > frame.shape[1] else cv2.INTER_AREA
        scaled = cv2.resize(frame, size, interpolation=method)
        yield cv2.cvtColor(_centre(scaled, reading), cv2.COLOR_BGR2RGB)


def torchcodec(reading: Reading) -> Iterator[Frame]:
    """torchcodec, scaled by torch: down with antialiasing, up by cubic interpolation."""
    import torch
    from torchcodec.decoders import VideoDecoder

    torch.set_num_threads(reading.threads)
    for path in reading.paths:
        decoder = VideoDecoder(path, num_ffmpeg_threads=reading.threads)
        for frame in decoder:
            width, height = _cover(frame.shape[2], frame.shape[1], reading)
            mode = "bicubic" if width > frame.shape[2] else "bilinear"
            scaled = torch.nn.functional.interpolate(
                frame[None], (height, width), mode=mode, antialias=True
            )
            yield _centre(scaled[0].permute(1, 2, 0).numpy(), reading)


SIDES: dict[str, Callable[[Reading], Iterator[Frame]]] = {
    "ttv": ttv,
    "pyav": pyav,
    "pyav-planes": pyav_planes,
    "opencv": opencv,
    "torchcodec": torchcodec,
    "pyav-decode": pyav_decode,
    "pyav-small": pyav_small,
    "opencv-decode": opencv_decode,
    "ttv-filter": filters,
}


def measure_reading(reading: Reading) -> dict[str, Any]:
    """Read everything: frames, wall and CPU seconds, and the most memory of any process."""
    kept: list[np.ndarray] = []
    count = 0
    before = [reading.warm] if reading.warm else []
    for _ in SIDES[reading.side](replace(reading, paths=before, threads=1)):  # imports all it needs
        pass
    frames = SIDES[reading.side](reading)
    started = next(frames).cpu_seconds if reading.side.startswith("ttv") else 0.0
    wall, cpu = time.perf_counter(), _cpu()
    for frame in frames:
        if reading.keep and count in reading.kept:
            kept.append(np.array(frame))
        count += 1
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu - started
    if reading.keep:
        np.save(reading.keep, np.stack(kept))
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "frames": count,
        "seconds": round(wall, 4),
        "cpu_seconds": round(cpu, 4),
        "peak_rss_mb": round(_peak() / 1024, 1),
        "peak_rss_mb_worker": round(workers / 1024, 1),  # 0 without processes of its own
    }


def _peak() -> int:
    """Kibibytes that this process held at most, without what it was forked from."""
    held = process_memory.peak()
    return held // 1024 if held else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cpu() -> float:
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(who) for who in whose]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _cover(width: int, height: int, reading: Reading) -> tuple[int, int]:
    scale = max(reading.width / width, reading.height / height)
    return max(round(width * scale), reading.width), max(round(height * scale), reading.height)


def _centre(picture: np.ndarray, reading: Reading) -> np.ndarray:
    return np.ascontiguousarray(_middle(picture, reading))


def _middle(picture: np.ndarray, reading: Reading) -> np.ndarray:
    top = (picture.shape[0] - reading.height) // 2
    left = (picture.shape[1] - reading.width) // 2
    return picture[top : top + reading.height, left : left + reading.width]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_reading(Reading(**json.loads(sys.argv[1])))) + "\n")
