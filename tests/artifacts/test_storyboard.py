"""Storyboards: three forms with one meaning, and errors that name the segment."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from ttvcli.artifacts.storyboard import (
    Segment,
    Storyboard,
    check_storyboard,
    read_storyboard,
    read_storyboards,
    write_storyboard,
)
from ttvcli.errors import ArtifactError

OURS = {
    "segments": [
        {"text": "a dog", "scene_start": True},
        {"text": "it runs", "negative": "cat"},
        {"text": "a lake", "scene_start": True},
    ],
    "seconds": 9,
}
PUBLIC = [
    {"text": "a dog", "requires_scene_transition": True},
    {"text": "it runs", "neg_text": "cat"},
    {"text": "a lake", "requires_scene_transition": True, "neg_text": None},
]
BOARD = Storyboard(
    (Segment("a dog"), Segment("it runs", "cat"), Segment("a lake", scene_start=True))
)


def store(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_our_form_and_the_public_forms_mean_the_same(tmp_path: Path) -> None:
    assert read_storyboard(store(tmp_path / "a.json", OURS)) == BOARD
    assert read_storyboard(store(tmp_path / "b.json", [PUBLIC])) == BOARD
    assert read_storyboard(store(tmp_path / "c.json", PUBLIC)) == BOARD
    lines = json.dumps(PUBLIC) + "\n" + json.dumps(PUBLIC[:1]) + "\n"
    both = read_storyboards(store(tmp_path / "d.jsonl", lines))
    assert both == [BOARD, Storyboard((Segment("a dog"),))]


def test_plain_text_is_one_segment_a_line(tmp_path: Path) -> None:
    board = read_storyboard(store(tmp_path / "a.txt", "\ufeffone\n\n  two \n"))
    assert board.prompts == ["one", "two"]
    assert board.seconds == 6


def test_standard_input_is_read_in_either_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (json.dumps(OURS), "a dog\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert read_storyboard("-").segments[0] == Segment("a dog")


def test_a_scene_change_marks_both_sides_and_the_first_segment_has_none() -> None:
    assert BOARD.prompts == ["a dog", "it runs <end_scene>", "<start_scene> a lake"]
    assert BOARD.negatives == ["", "cat", ""]


def test_writing_and_reading_keeps_everything(tmp_path: Path) -> None:
    write_storyboard(tmp_path / "a.json", BOARD)
    assert read_storyboard(tmp_path / "a.json") == BOARD


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"segments": [{"text": "a"}, {"text": " "}]}, "segment 2: the text is empty"),
        ({"segments": [{"text": "a"}, {}]}, "segment 2: the text is empty"),
        ({"segments": [{"text": "a", "txet": "b"}]}, "segment 1: there is no key 'txet'"),
        ({"segments": [{"text": 3}]}, "segment 1: text is 3, expected text"),
        ({"segments": [{"text": "a", "scene_start": "no"}]}, "expected true or false"),
        ({"segments": [{"text": "a"}], "seconds": 9}, "1 segment of 3 s: 3 s in all, not 9 s"),
        ({"segments": [{"text": "a"}], "seconds": "9"}, "seconds is '9'"),
        ({"segments": []}, "expected a list of segments"),
        ({"segmets": []}, "there is no key 'segmets'"),
        ([[{"text": "a"}], [{"text": ""}]], "video 2, segment 1: the text is empty"),
        ("{", "not valid JSON"),
    ],
)
def test_an_error_names_the_segment(value: Any, what: str, tmp_path: Path) -> None:
    path = store(tmp_path / "x.json", value)
    with pytest.raises(ArtifactError) as caught:
        read_storyboards(path)
    assert what in caught.value.what
    assert caught.value.where == str(path)


def test_several_videos_are_not_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds 2 videos"):
        read_storyboard(store(tmp_path / "x.json", [PUBLIC, PUBLIC]))
    with pytest.raises(ArtifactError, match="no such storyboard"):
        read_storyboard(tmp_path / "none.json")


def test_length_and_token_budget_are_checked_with_the_scene_marks() -> None:
    def words(text: str) -> int:
        return len(text.split())

    check_storyboard(BOARD, seconds=9, count_tokens=words, max_tokens=3)
    with pytest.raises(ArtifactError, match="not 12 s") as caught:
        check_storyboard(BOARD, seconds=12)
    assert caught.value.fix == "--seconds 9, or 4 segments"
    with pytest.raises(ArtifactError, match="segment 2: its text has 3 tokens, the limit is 2"):
        check_storyboard(BOARD, count_tokens=words, max_tokens=2)
