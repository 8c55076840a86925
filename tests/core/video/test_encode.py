"""Writing H.264."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import drawn_frame

from ttvcli.core.video.decode import read_frames, scan
from ttvcli.core.video.encode import write_video


def frames(count: int = 9, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    return [drawn_frame(*size, index) for index in range(count)]


def test_what_is_written_can_be_read_back(tmp_path: Path) -> None:
    sent = [np.full((48, 64, 3), (10 * i, 100, 200 - 10 * i), np.uint8) for i in range(17)]
    assert write_video(tmp_path / "a.mp4", sent, 16) == 17
    found = scan(tmp_path / "a.mp4")
    assert (found.frames, found.duration) == (17, Fraction(17, 16))
    for (time, frame), index in zip(read_frames(tmp_path / "a.mp4"), range(17), strict=True):
        assert time == Fraction(index, 16)
        # two levels: 8-bit limited-range YUV cannot hold every RGB value
        assert np.abs(frame.astype(int) - sent[index]).max() <= 2


def test_any_player_can_play_it(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames(), 16)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.find(b"moov") < data.find(b"mdat"), "the index comes first"
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", 1)


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, iter(frames(20)), 16)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_frames_are_encoded_as_they_come(tmp_path: Path) -> None:
    given = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal given
        for index in range(120):
            given += 1
            noise = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            yield noise
            if index == 100:
                sizes.append(max(p.stat().st_size for p in tmp_path.iterdir()))

    sizes: list[int] = []
    write_video(tmp_path / "a.mp4", stream(), 16, preset="ultrafast")
    assert given == 120
    assert sizes[0] > 100_000, "most of the file was on disk before the last frame was made"


@pytest.mark.parametrize("size", [(63, 48), (64, 47)])
def test_odd_sizes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
        write_video(tmp_path / "a.mp4", frames(size=size), 16)
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "at least one frame"),
        ([np.zeros((48, 64, 3), np.float32)], "uint8"),
        ([np.zeros((48, 64), np.uint8)], "H, W, 3"),
        ([np.zeros((48, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)], "one size"),
    ],
)
def test_other_frames_are_refused_and_leave_no_file(
    tmp_path: Path, sent: list[np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", sent, 16)
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(("fps", "crf"), [(0, 17), (-1, 17), (16, 52), (16, -1)])
def test_impossible_settings_are_refused(tmp_path: Path, fps: int, crf: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        write_video(tmp_path / "a.mp4", frames(2), fps, crf=crf)


def test_a_writer_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def stream() -> Iterator[np.ndarray]:
        yield from frames(5)
        raise RuntimeError("the model broke")

    with pytest.raises(RuntimeError, match="broke"):
        write_video(tmp_path / "a.mp4", stream(), 16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_os_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        write_video("/dev/full", frames(), 16)
    assert Path("/dev/full").exists()


def test_textured_films_give_the_same_bytes_however_used_the_memory_is(tmp_path: Path) -> None:
    # A moving wave with noise and a disc: with x264's defaults every file differs from the others.
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    film = []
    for time in range(33):
        frame = 100 + 40 * np.sin(columns / 7 + time / 5)[..., None]
        frame = frame + rng.normal(0, 4, (64, 64, 3))
        frame[(columns - 10 - 0.8 * time) ** 2 + (rows - 30) ** 2 < 90] = (220, 30, 40)
        film.append(frame.clip(0, 255).astype(np.uint8))
    written = set()
    for number in range(6):
        write_video(tmp_path / "film.mp4", film, 16, crf=12)
        written.add((tmp_path / "film.mp4").read_bytes())
        # Leave used memory of several sizes behind for the next one.
        used = [rng.integers(0, 255, size, np.uint8) for size in (3000, 50_000, 200_000)]
        del used[number % 3]
    assert len(written) == 1
