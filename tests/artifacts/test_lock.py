"""The lock of an output folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from ttvcli.artifacts.lock import only_writer
from ttvcli.errors import UsageError

HOLD = """
import sys
from ttvcli.artifacts.lock import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UsageError, match="another process"), only_writer(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with only_writer(tmp_path):
            pass


def test_a_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with only_writer(tmp_path / "new"):
            pass


@pytest.mark.parametrize("name", ["file", "file/inside"])
def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="a file, not a folder"), only_writer(tmp_path / name):
        pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a /proc")
def test_a_place_where_no_folder_can_be_made_is_told() -> None:
    with pytest.raises(UsageError, match="no folder can be made"), only_writer("/proc/ttv"):
        pass
