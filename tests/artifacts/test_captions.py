"""Tables of captions in the forms that data sets have, and back from the hand that filled them."""

import csv
import json
from pathlib import Path

import pytest

from ttvcli.artifacts.captions import (
    FILL_IN_COLUMNS,
    CaptionRow,
    read_caption_table,
    read_prompt_lists,
    write_fill_in,
)
from ttvcli.errors import ArtifactError


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": "a dog\\n runs"}\n\n'),
        ("m.json", '[{"video": "a.mp4", "prompt": "a dog  runs"}]'),
        ("metadata.csv", "\ufefffile_name,text\r\na.mp4,a dog runs\r\n"),
        ("m.csv", 'Path,Caption\na.mp4,"a dog\nruns"\n'),
        ("m.tsv", "path\tcaption\na.mp4\ta dog runs\n"),
    ],
)
def test_every_form_gives_the_same_row(tmp_path: Path, name: str, text: str) -> None:
    assert read_caption_table(write(tmp_path / name, text)) == [CaptionRow("a.mp4", "a dog runs")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.jsonl", '{"file_name": "a.mp4", "text": "x"}\n{broken\n', "line 2"),
        ("m.jsonl", '{"file_name": "a.mp4"}\n', "row 1 has none of caption"),
        ("m.csv", "caption\nx\n", "row 2 has none of path"),
        ("m.csv", "path;caption\na.mp4;x\n", "only path;caption"),
        ("m.csv", 'path,caption\na.mp4,x\nb.mp4,"never closed\nc.mp4,y\n', "row 3: unexpected end"),
        ("m.csv", "path,caption\na.mp4,x\nb.mp4,a man, talking\n", "row 3 has more columns"),
        ("m.jsonl", '{"path": "a", "caption": ["x", "y"]}', "expected one text"),
        ("m.jsonl", "[1]", "entry 1"),
        ("m.jsonl", '{"path": "a", "caption": "b", "segment": "two"}', "numbers"),
        ("m.jsonl", '{"path": "a", "caption": "b", "segment": Infinity}', "numbers"),
        ("m.xlsx", "", ".jsonl"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(ArtifactError, match=said):
        read_caption_table(write(tmp_path / name, text))


def test_lists_of_prompts_and_videos_go_line_by_line(tmp_path: Path) -> None:
    write(tmp_path / "prompts.txt", "a dog\na cat\n")
    assert read_prompt_lists(tmp_path) == []
    write(tmp_path / "videos.txt", "videos/1.mp4\r\nvideos/2.mp4\r\n")
    assert read_prompt_lists(tmp_path) == [
        CaptionRow("videos/1.mp4", "a dog"),
        CaptionRow("videos/2.mp4", "a cat"),
    ]
    write(tmp_path / "videos.txt", "videos/1.mp4\n")
    with pytest.raises(ArtifactError, match=r"2 lines, videos.txt has 1"):
        read_prompt_lists(tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_table_to_fill_in_comes_back_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"todo{suffix}"
    row = {"path": 'a, "b".mp4', "id": "x", "segment": 2, "start": 6.0, "caption": "a dog, running"}
    write_fill_in(path, [row])
    assert read_caption_table(path) == [
        CaptionRow('a, "b".mp4', "a dog, running", id="x", segment=2, start=6.0)
    ]
    text = path.read_text("utf-8-sig")
    first = next(csv.reader(text.splitlines())) if suffix == ".csv" else list(json.loads(text))
    assert tuple(first) == FILL_IN_COLUMNS
