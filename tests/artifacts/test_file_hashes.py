"""Remembered hashes: when a file is read again, and what becomes of a memory that is no use."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from ttvcli.artifacts import file_hashes
from ttvcli.artifacts import model_folder as models
from ttvcli.artifacts.atomic import temporary_beside
from ttvcli.artifacts.file_hashes import bytes_to_read, digest_of, memory_path, read_digest

RESOLUTION = 2 * 10**9  # ns, of FAT
LATER = 10 * 10**9  # ns; to hash a file now that is ten seconds old


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own; every file counts as large, and as ten seconds old."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "LARGE", 1)
    monkeypatch.setattr(file_hashes, "time_ns", lambda: time_ns() + LATER)
    monkeypatch.setattr(file_hashes, "_seen", {})
    return tmp_path / "cache"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "a.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose bytes were read, in order."""
    found: list[str] = []
    real = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        found.append(Path(file.name).name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return found


def next_run(path: Path) -> bytes:
    """The hash as a process that begins now finds it."""
    file_hashes._seen.clear()
    return digest_of(path, between_runs=True)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(memory_path().read_text())["files"]
    return found


def test_a_large_file_is_read_by_the_first_run_only(weights: Path, reads: list[str]) -> None:
    for _ in range(3):
        assert next_run(weights) == sha256(b"weights")
    assert reads == ["a.safetensors"]


def test_what_a_run_will_read_is_known_before(weights: Path, reads: list[str]) -> None:
    assert bytes_to_read(weights) == len(b"weights")
    next_run(weights)
    file_hashes._seen.clear()
    assert bytes_to_read(weights) == 0
    weights.write_bytes(b"others!!")
    assert bytes_to_read(weights) == len(b"others!!")
    assert len(reads) == 1


def test_another_process_finds_what_this_one_remembered(weights: Path, cache: Path) -> None:
    next_run(weights)
    ask = """
import sys
from ttvcli.artifacts import file_hashes
file_hashes.LARGE = 1
file_hashes._read = None  # whoever reads, fails
print(file_hashes.digest_of(sys.argv[1], between_runs=True).hex())
"""
    asked = subprocess.run(
        [sys.executable, "-c", ask, str(weights)], check=True, capture_output=True, text=True
    )
    assert asked.stdout.strip() == sha256(b"weights").hex()


def test_small_files_and_those_of_data_sets_are_not_remembered(
    weights: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest_of(weights)
    assert not memory_path().exists()
    monkeypatch.setattr(file_hashes, "LARGE", len(b"weights") + 1)
    next_run(weights)
    assert not memory_path().exists()
    digest_of(weights)
    assert len(reads) == 2  # the third time in the process is answered from what it has seen


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"WEIGHTS")


def overwrite_and_set_the_time_back(path: Path) -> None:
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_and_set_the_time_back(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"WEIGHTS")
    shutil.copystat(path, other)
    other.replace(path)


@pytest.mark.parametrize(
    "change", [overwrite, overwrite_and_set_the_time_back, replace_and_set_the_time_back]
)
def test_a_file_of_other_bytes_and_the_same_size_is_read_again(
    weights: Path, change: Callable[[Path], None]
) -> None:
    assert next_run(weights) == sha256(b"weights")
    change(weights)
    assert next_run(weights) == sha256(b"WEIGHTS")
    assert len(entries()) == 1  # the old entry of the path is gone


@pytest.mark.parametrize("field", file_hashes.Stamp._fields)
def test_every_field_of_the_stamp_counts(
    weights: Path, reads: list[str], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_run(weights)
    real = file_hashes._stamp

    def other(path: Path, found: os.stat_result) -> file_hashes.Stamp:
        stamp = real(path, found)
        value = getattr(stamp, field)
        return stamp._replace(**{field: value + ("x" if field == "path" else 1)})

    monkeypatch.setattr(file_hashes, "_stamp", other)
    next_run(weights)
    assert len(reads) == 2


def test_a_link_and_its_target_are_one_file(weights: Path, reads: list[str]) -> None:
    next_run(weights)
    link = weights.with_name("link")
    link.symlink_to(weights)
    assert next_run(link) == sha256(b"weights")
    assert len(reads) == 1


@pytest.mark.parametrize("which", ["mtime", "ctime"])
def test_a_file_as_young_as_the_resolution_of_its_stamp_is_not_remembered(
    weights: Path, reads: list[str], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if which == "mtime":  # a time stamp in the future: nobody knows when it was written
        ahead = time_ns() + LATER - RESOLUTION
        os.utime(weights, ns=(ahead, ahead))
        monkeypatch.setattr(file_hashes, "time_ns", lambda: ahead + RESOLUTION)
    else:
        os.utime(weights, ns=(0, 0))
        now = weights.stat().st_ctime_ns + RESOLUTION
        monkeypatch.setattr(file_hashes, "time_ns", lambda: now)
    next_run(weights)
    assert not memory_path().exists()
    monkeypatch.setattr(file_hashes, "time_ns", lambda: time_ns() + 2 * LATER)
    next_run(weights)
    next_run(weights)
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = hashlib.file_digest

    def slow(file: Any, name: str) -> Any:
        digest = real(file, name)
        with weights.open("ab") as other:
            other.write(b"!")
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", slow)
        digest_of(weights, between_runs=True)
    assert not memory_path().exists()
    assert digest_of(weights, between_runs=True) == sha256(b"weights!")  # in this process neither


def damage_digit(path: Path) -> None:
    known = entries()[0]["sha256"]
    path.write_text(path.read_text().replace(known, "0" * 64))


def make_too_large(path: Path) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps({"padding": "x" * file_hashes._MOST_BYTES, **found}))


@pytest.mark.parametrize(
    "damage",
    [
        damage_digit,
        make_too_large,
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b"\xff\x00"),
        lambda path: path.write_text(""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"version": 1, "files": 3}'),
        lambda path: path.write_text(path.read_text().replace('"version": 1', '"version": 2')),
        lambda path: path.write_text("[" * 100_000),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
)
def test_a_damaged_memory_is_read_past_and_written_anew(
    weights: Path, reads: list[str], damage: Callable[[Path], object]
) -> None:
    next_run(weights)
    damage(memory_path())
    for _ in range(2):
        assert next_run(weights) == sha256(b"weights")
    assert len(reads) == 2


def test_an_entry_of_another_form_is_read_past(weights: Path, reads: list[str]) -> None:
    next_run(weights)
    path = memory_path()
    for files in ([3], [{"path": "x"}], [{**entries()[0], "inode": []}]):
        text = {"version": 1, "check": file_hashes._check(files), "files": files}
        path.write_text(json.dumps(text))
        assert next_run(weights) == sha256(b"weights")
    assert len(reads) == 4


@pytest.mark.parametrize("where", ["/dev/null", "/proc", "/dev/full"])
def test_a_cache_that_cannot_be_written_is_not_used(
    weights: Path, reads: list[str], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", where)
    for _ in range(2):
        assert next_run(weights) == sha256(b"weights")
    assert len(reads) == 2


def test_a_folder_in_the_place_of_the_memory_is_left_alone(weights: Path) -> None:
    (memory_path() / "of somebody").mkdir(parents=True)
    assert next_run(weights) == sha256(b"weights")
    assert names_in(memory_path().parent) == [memory_path().name]


def test_a_user_without_a_home_does_without(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert next_run(weights) == sha256(b"weights")


@pytest.mark.parametrize("given", [None, "", "relative/folder"])
def test_the_cache_folder_is_that_of_the_user(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    if given is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert memory_path() == tmp_path / ".cache" / "ttv" / "file-hashes.json"


def test_the_memory_is_private_and_leaves_nothing_else(weights: Path, cache: Path) -> None:
    left = cache / "ttv" / file_hashes.MEMORY_NAME
    next_run(weights)
    assert [path for path in cache.rglob("*") if path.is_file()] == [left]
    assert left.parent.stat().st_mode & 0o077 == 0
    assert names_in(weights.parent) == ["a.safetensors"]  # an input is never touched


def test_what_a_killed_run_left_goes_away(weights: Path) -> None:
    memory_path().parent.mkdir(parents=True)
    left = temporary_beside(memory_path())  # as of this process, which is not writing now
    left.write_text("half")
    next_run(weights)
    assert names_in(left.parent) == [file_hashes.MEMORY_NAME]


def test_the_memory_stays_small_and_forgets_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "MOST", 3)
    for number in range(5):
        path = tmp_path / f"{number}"
        path.write_bytes(b"x")
        next_run(path)
    assert [entry["path"] for entry in entries()] == [str(tmp_path / n) for n in "234"]


def test_runs_at_once_leave_a_whole_memory(tmp_path: Path, weights: Path) -> None:
    work = """
import sys, time
from pathlib import Path
from ttvcli.artifacts import file_hashes
file_hashes.LARGE = 1
file_hashes.time_ns = lambda: time.time_ns() + 10**10
for number in range(20):
    path = Path(sys.argv[1]) / f"{sys.argv[2]}-{number}"
    path.write_bytes(b"x")
    file_hashes.digest_of(path, between_runs=True)
    assert file_hashes._memory(), "a torn memory"
"""
    runs = [subprocess.Popen([sys.executable, "-c", work, str(tmp_path), name]) for name in "ab"]
    assert [run.wait() for run in runs] == [0, 0]
    assert {str(tmp_path / "a-19"), str(tmp_path / "b-19")} & {e["path"] for e in entries()}
    assert names_in(memory_path().parent) == [file_hashes.MEMORY_NAME]


def test_names_that_are_not_unicode_are_remembered(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    path.write_bytes(b"weights")
    for _ in range(2):
        assert next_run(path) == sha256(b"weights")
    assert len(reads) == 1


def test_a_missing_file_is_an_error_although_it_is_remembered(weights: Path) -> None:
    next_run(weights)
    weights.unlink()
    with pytest.raises(FileNotFoundError):
        next_run(weights)


def test_a_component_keeps_its_hash_and_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    folder = tmp_path / "mine"
    inside = folder / "vae"
    inside.mkdir(parents=True)
    (inside / "config.json").write_text("{}")
    (inside / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    for _ in range(2):
        file_hashes._seen.clear()
        expected = hashlib.sha256(sha256(b"{}") + sha256(b"weights")).hexdigest()[:16]
        assert models.component_hash(folder, "vae") == expected
    assert reads == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_a_seal_is_compared_with_bytes_and_not_with_what_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.write_file(tmp_path, "tokenizer/spiece.model", b"pieces")
    models.seal(tmp_path)
    before = models.component_hash(tmp_path, "tokenizer")
    stamp = next(iter(file_hashes._seen))
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(b"pieceS")  # as a failing disk does it:
    monkeypatch.setattr(file_hashes, "_stamp", lambda *_: stamp)  # without another stamp
    assert models.component_hash(tmp_path, "tokenizer") == before
    assert models.broken_components(tmp_path) == ["tokenizer"]
    assert read_digest(tmp_path / "tokenizer" / "spiece.model") == sha256(b"pieceS")
