"""A video and its sidecar."""

from pathlib import Path

import pytest

from ttvcli.artifacts.video import new_video, read_sidecar, sidecar_path
from ttvcli.errors import ArtifactError


def write(path: Path, content: bytes = b"film", seed: int = 42) -> None:
    with new_video(path, {"seed": seed}, {"model": "abc"}) as (temporary, facts):
        temporary.write_bytes(content)
        facts["frames"] = 49


def test_the_sidecar_is_beside_the_video(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4")
    assert sidecar_path(tmp_path / "out.mp4") == tmp_path / "out.json"
    found = read_sidecar(tmp_path / "out.mp4")
    assert found["kind"] == "video"
    assert found["settings"] == {"seed": 42}
    assert found["made_from"] == {"model": "abc"}
    assert found["frames"] == 49
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.mp4"]


def test_a_failure_leaves_neither_and_keeps_what_was_there(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with new_video(path, {}) as (temporary, _):
            temporary.write_bytes(b"half")
            raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        fail(tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "out.mp4")
    with pytest.raises(RuntimeError, match="broke"):
        fail(tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"film"
    assert read_sidecar(tmp_path / "out.mp4")["settings"] == {"seed": 42}


def test_a_new_video_never_stands_beside_the_facts_of_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", seed=1)
    write(tmp_path / "out.mp4", content=b"other", seed=2)
    assert read_sidecar(tmp_path / "out.mp4")["settings"] == {"seed": 2}


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"\.avi") as caught:
        write(tmp_path / "out.avi")
    assert "out.mp4" in caught.value.fix


@pytest.mark.parametrize("content", [None, "{", "[]", '{"kind": "latents", "schema_version": 1}'])
def test_a_missing_or_foreign_sidecar_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "out.json").write_text(content)
    with pytest.raises(ArtifactError):
        read_sidecar(tmp_path / "out.mp4")
