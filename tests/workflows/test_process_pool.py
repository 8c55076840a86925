"""A worker that crashes or hangs costs its item and nothing else; none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pool_work import work

from ttvcli.workflows.process_pool import Message, ProcessPool, machine_workers


def outcomes(items: list[str], workers: int = 2, patience: float = 60.0) -> dict[str, Message]:
    with ProcessPool(work, workers, patience) as pool:
        return {message.item: message for message in pool.map(items) if message.kind != "beat"}


def test_all_items_are_done_once() -> None:
    with ProcessPool(work, 2, 60.0) as pool:
        found = list(pool.map([str(number) for number in range(20)]))
    assert sorted(message.value for message in found) == sorted(f"did {n}" for n in range(20))


def test_a_crash_costs_one_item() -> None:
    found = outcomes(["a", "crash", "b", "c"], workers=1)
    assert found["crash"].kind == "crashed"
    assert {found[name].value for name in "abc"} == {"did a", "did b", "did c"}


def test_a_hang_is_ended_and_a_slow_item_that_shows_life_is_not() -> None:
    found = outcomes(["hang", "slow", "a"], workers=2, patience=1.5)
    assert found["hang"].kind == "timeout"
    assert found["slow"].kind == "done"
    assert found["a"].kind == "done"


def test_errors_come_back_as_what_they_are() -> None:
    found = outcomes(["full disk", "bug", "a"], workers=1)
    assert isinstance(found["full disk"].value, OSError)
    assert found["full disk"].value.errno == 28
    assert found["full disk"].value.filename == "x.json"
    assert "ZeroDivisionError" in str(found["bug"].value)
    assert found["a"].kind == "done"


def test_workers_find_what_has_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcomes(["folder"], workers=1)["folder"].value == str(tmp_path)


@pytest.mark.parametrize("before", [None, "5"])
def test_workers_calculate_with_one_thread_each(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if before is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    assert outcomes(["threads"])["threads"].value == "1"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_an_abandoned_pool_leaves_no_process() -> None:
    with ProcessPool(work, 1, 60.0) as pool:
        pid = next(iter(pool.map(["pid", "hang"]))).value
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from pool_work import work\n"
        "from ttvcli.workflows.process_pool import ProcessPool\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPool(work, 1, 60.0) as pool:\n"
        "        for message in pool.map(['pid', 'hang']):\n"
        "            print(message.value, flush=True)\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    worker = int(done.stdout)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and running(worker):
        time.sleep(0.05)
    assert not running(worker)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows")
def test_ctrl_c_does_not_reach_a_worker_that_is_starting() -> None:
    with ProcessPool(work, 2, 60.0) as pool:
        assert [message.value for message in pool.map(["held", "held"])] == [True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_machine_has_workers() -> None:
    assert 1 <= machine_workers() <= (os.cpu_count() or 1)
