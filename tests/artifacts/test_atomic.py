"""Files are whole or absent, whatever happens to the writer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ttvcli.artifacts import atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic.write_json(path, {"x": 1})
    with pytest.raises(TypeError), atomic.replacing(path) as temporary:
        temporary.write_text(3)  # type: ignore[arg-type]
    assert path.read_text() == '{\n  "x": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "deep" / "clip.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path / "deep"
        temporary.write_bytes(b"x")


def test_a_folder_appears_as_a_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "step"
    for text in ("old", "new"):
        with atomic.replacing_folder(target) as inside:
            (inside / f"{text}.txt").write_text(text)
    assert [path.name for path in target.iterdir()] == ["new.txt"]
    with pytest.raises(RuntimeError), atomic.replacing_folder(target) as inside:
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from ttvcli.artifacts.atomic import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.mp4")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    (leftover,) = tmp_path.iterdir()
    assert atomic.remove_leftovers(tmp_path) == []  # its writer is still alive
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (tmp_path / ".hidden.tmp-file").touch()  # not ours
    assert atomic.remove_leftovers(tmp_path) == [leftover]
    assert [path.name for path in tmp_path.iterdir()] == [".hidden.tmp-file"]


def test_lines_are_appended_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    atomic.append_line(path, "é")
    atomic.append_line(path, "b")
    assert path.read_bytes() == "é\nb\n".encode()
    with pytest.raises(ValueError, match="one line"):
        atomic.append_line(path, "a\nb")


def test_json_keeps_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    atomic.write_json(tmp_path / "a.json", {"path": name, "é": 1})
    assert b"caf\\udce9" in (tmp_path / "a.json").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_writer_that_ended_but_was_never_waited_for_does_not_run(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    name = atomic.temporary_beside(tmp_path / "a.json").name
    left = tmp_path / name.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    left.touch()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not atomic._is_zombie(process.pid):
        time.sleep(0.01)
    try:
        assert atomic.remove_leftovers(tmp_path) == [left]
    finally:
        process.wait()
