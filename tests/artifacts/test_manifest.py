"""Manifests: appended line by line, torn lines repaired, unknown fields kept."""

import io
from pathlib import Path

import pytest

from ttvcli.artifacts.manifest import ManifestWriter, read_manifest, write_manifest
from ttvcli.errors import ArtifactError

RECORDS = [{"id": "b", "mine": {"deep": [1, None]}, "path": "ä.mp4"}, {"id": "a"}]


def test_records_come_back_in_order_with_unknown_fields(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, RECORDS)
    assert read_manifest(path) == RECORDS
    assert read_manifest(tmp_path) == RECORDS
    assert list(read_manifest(path)[0]) == ["id", "mine", "path"]


def test_a_torn_last_line_is_ignored_and_cut_off_before_the_next_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, RECORDS[:1])
    with path.open("a") as file:
        file.write('{"id": "a"')
    assert read_manifest(path) == RECORDS[:1]
    with ManifestWriter(path) as writer:
        assert writer.done == {"b"}
        writer.append(RECORDS[1])
        assert writer.done == {"a", "b"}
    assert read_manifest(path) == RECORDS
    whole = path.read_bytes()
    write_manifest(path, RECORDS)
    assert path.read_bytes() == whole


def test_a_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"id": "x"}')
    ManifestWriter(path).append({"id": "y"})
    assert [record["id"] for record in read_manifest(path)] == ["x", "y"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": 1}\n{"id"\n{"id": 3}\n')
    with pytest.raises(ArtifactError, match="line 2 is not JSON"):
        read_manifest(path)
    path.write_text('{"id": 1}\n[1]\n')
    with pytest.raises(ArtifactError, match="line 2 is list"):
        read_manifest(path)
    with pytest.raises(ArtifactError, match="no such manifest"):
        read_manifest(tmp_path / "none.jsonl")


def test_a_dash_reads_stdin_and_writes_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"id": "ä"}\n'))
    with ManifestWriter("-") as writer:
        for record in read_manifest("-"):
            writer.append(record)
    assert capsys.readouterr().out == '{"id": "ä"}\n'


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ('{"segments": "x"}', 'segments is "x", expected a list'),
        ('{"segments": [{}, 5]}', "segment 1 is 5, expected an object"),
        ('{"segments": [{"start": "a"}]}', 'start of segment 0 is "a", expected seconds'),
        ('{"segments": [{"end": 1e400}]}', "end of segment 0 is Infinity, expected seconds"),
        ('{"segments": [{"caption": ["a"]}]}', 'caption of segment 0 is ["a"], expected a text'),
        ('{"caption": ["one", "two"]}', 'caption is ["one", "two"], expected a text'),
    ],
)
def test_segments_that_no_step_could_use_are_refused_with_their_line(
    tmp_path: Path, record: str, complaint: str
) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"segments": [{"start": 0, "end": null, "caption": "a"}]}\n' + record + "\n")
    with pytest.raises(ArtifactError) as raised:
        read_manifest(path)
    assert raised.value.what == f"line 2: {complaint}"


def test_a_manifest_from_an_editor_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"path": "a.mp4"}\r\n')
    assert read_manifest(path) == [{"path": "a.mp4"}]
