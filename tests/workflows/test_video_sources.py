"""Finding videos and their captions."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ttvcli.errors import ArtifactError
from ttvcli.workflows.video_sources import Source, clip_segments, find_sources, read_caption

WHOLE = [{"start": 0.0, "end": None, "caption": "a dog"}]


def names(source: str | Path) -> list[str]:
    return [video.name for video in find_sources(source).videos]


def touch(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_searched_through_in_a_fixed_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP4", "a/c.webm", "a.mkv", "é/ü.gif", "notes.txt", "x.mp4.part", "a/B.Mov")
    assert names(tmp_path) == ["a.mkv", "a/B.Mov", "a/c.webm", "b.MP4", "é/ü.gif"]


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "._a.mp4", ".cache/b.mp4")
    assert names(tmp_path) == ["a.mp4"]


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "elsewhere/b.mp4")
    (tmp_path / "in" / "loop").symlink_to("..")
    (tmp_path / "in" / "b.mp4").symlink_to(tmp_path / "elsewhere" / "b.mp4")
    found = names(tmp_path / "in")
    assert {"a.mp4", "b.mp4"} <= set(found)
    assert len(found) < 10


def test_a_manifest_in_the_folder_wins(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    lines = [{"id": "1", "path": "b.mp4"}, {"id": "2", "path": "a.mp4", "keep": False}]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = find_sources(tmp_path)
    assert [video.name for video in found.videos] == ["b.mp4"]
    assert found.videos[0].path == tmp_path / "b.mp4"
    assert found.left_out == 1


def test_a_manifest_can_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"path": "x/a.mp4"}\n'))
    assert find_sources("-").videos == [Source(Path("x/a.mp4"), "x/a.mp4", {"path": "x/a.mp4"})]


@pytest.mark.parametrize("content", ["", '{"id": "1"}\n', '{"path": 7}\n'])
def test_a_manifest_without_paths_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.jsonl").write_text(content)
    with pytest.raises(ArtifactError):
        find_sources(tmp_path / "list.jsonl")


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no video"):
        find_sources(tmp_path)
    with pytest.raises(ArtifactError, match="no such"):
        find_sources(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"a dog\n", "a dog"),
        (b"\xef\xbb\xbfa dog\r\nruns\r\n", "a dog runs"),
        ("ein Hündchen".encode("utf-16"), "ein Hündchen"),
        (b"a\0dog", "a dog"),
        (b"caf\xe9", "caf\ufffd"),
        (b" \n", None),
        (b"x" * 5_000_000, "x" * (1 << 20)),
    ],
    ids=["plain", "bom and crlf", "utf-16", "nul", "latin-1", "blank", "five megabytes"],
)
def test_caption_files_of_any_kind_are_read(
    tmp_path: Path, content: bytes, caption: str | None
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert read_caption(tmp_path / "a.txt") == caption
    segments = Source(tmp_path / "a.mp4", "a.mp4").segments()
    assert [s["caption"] for s in segments] == ([] if caption is None else [caption])


def test_a_caption_file_in_capitals_is_read_where_there_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "A.TXT").write_text("in capitals")
    assert Source(tmp_path / "A.AVI", "A.AVI").segments()[0]["caption"] == "in capitals"
    (tmp_path / "A.txt").write_text("as usual")
    assert Source(tmp_path / "A.AVI", "A.AVI").segments()[0]["caption"] == "as usual"


def test_captions_of_the_manifest_come_before_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("from the file")
    segments = [{"start": 0, "end": 3, "caption": "from the manifest"}]
    assert Source(tmp_path / "a.mp4", "a", {"segments": segments}).segments() == segments
    assert Source(tmp_path / "a.mp4", "a", {"caption": "one"}).segments()[0]["caption"] == "one"


def test_a_caption_of_the_whole_video_goes_to_every_segment() -> None:
    found = clip_segments(WHOLE, 100.0, [(0, 3), (3, 6)])
    assert [(s["start"], s["end"], s["caption"]) for s in found] == [
        (0, 3, "a dog"),
        (3, 6, "a dog"),
    ]


def test_segments_take_the_caption_they_overlap_most() -> None:
    source = [{"start": 3 * i, "end": 3 * i + 3, "caption": str(i), "mood": i} for i in range(9)]
    # the second clip of 49 frames starts at 3.0625 s
    found = clip_segments(source, 3.0625, [(0, 3), (3, 6)])
    assert [s["caption"] for s in found] == ["1", "2"]
    assert [s["mood"] for s in found] == [1, 2]


def test_a_segment_without_any_caption_is_empty() -> None:
    assert clip_segments([], 0, [(0, 3)]) == [{"start": 0, "end": 3, "caption": ""}]
    source = [{"start": 0, "end": 3, "caption": "early"}]
    assert clip_segments(source, 3.0, [(0, 3)])[0]["caption"] == ""


def test_a_scene_that_fills_two_segments_begins_and_ends_once() -> None:
    source = [{"start": 0, "end": 6, "caption": "x", "scene_start": True, "scene_end": True}]
    found = clip_segments(source, 0, [(0, 3), (3, 6)])
    assert [(s["scene_start"], s["scene_end"]) for s in found] == [(True, False), (False, True)]


def test_a_folder_that_may_not_be_listed_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [source.name for source in find_sources(tmp_path).videos] == ["a.mp4", "closed"]


def test_what_a_manifest_drops_is_told_apart(tmp_path: Path) -> None:
    lines = [{"path": "a.mp4"}, {"path": "b.mp4", "keep": False}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "manifest.jsonl").write_text(text)
    found = find_sources(tmp_path)
    assert [source.name for source in found.videos] == ["a.mp4"]
    assert [source.name for source in found.dropped] == ["b.mp4"]
    assert found.left_out == 1


@pytest.mark.parametrize("kind", ["latents", "embeddings"])
def test_the_folder_of_a_later_step_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "path": "a.safetensors"}\n')
    (tmp_path / "ttv.json").write_text(json.dumps({"kind": kind}))
    with pytest.raises(ArtifactError, match=f"holds {kind}, not videos"):
        find_sources(tmp_path)
