"""Decoding ahead in processes: the same events as without, whatever becomes of a process."""

import os
import signal
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_files import make_video
from worker_tasks import Count, Crash, Hang, ProcessOf, Slow

from ttvcli.core.video.clip_stream import Broken, Frames
from ttvcli.errors import WorkFailed
from ttvcli.workflows import decode_pool
from ttvcli.workflows.decode_pool import Inline, Pool, open_decoder, worker_count
from ttvcli.workflows.decode_worker import DecodeTask, LookTask


def drain(decoder: Any) -> dict[int, list[Any]]:
    """All events, by task."""
    found: dict[int, list[Any]] = {}
    with decoder:
        while (stream := decoder.ready()) is not None:
            event = stream.take()
            if event is not None:
                found.setdefault(stream.index, []).append(event)
    return found


def test_processes_give_the_events_that_this_process_gives() -> None:
    tasks: list[Any] = [Count(3), Count(1, value=100), Count(5, value=50)]
    alone, together = drain(Inline(tasks)), drain(Pool(tasks, workers=2))
    assert alone.keys() == together.keys() == {0, 1, 2}
    for index, events in alone.items():
        assert [event.clip for event in events] == [event.clip for event in together[index]]
        for one, other in zip(events, together[index], strict=True):
            assert np.array_equal(one.pictures, other.pictures)


def test_pixels_that_find_no_room_in_shared_memory_come_through_the_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks: list[Any] = [Count(12)]  # more chunks than slots, all of them kept
    assert [event.pictures.max() for event in drain(Pool(tasks, workers=1))[0]] == list(range(12))
    monkeypatch.setattr(decode_pool, "shared_file", lambda: None)
    assert [event.pictures.max() for event in drain(Pool(tasks, workers=1))[0]] == list(range(12))


def test_processes_start_before_the_pool_is_entered_and_work_after_it() -> None:
    pool = Pool([Count(1), Count(1)], workers=5)
    assert pool.prepare() > 0.01  # seconds: two interpreters have started
    assert len(pool._workers) == 2
    assert not pool._streams
    assert len(drain(pool)) == 2


def test_a_task_that_would_leave_a_worker_idle_has_a_second_thread(tmp_path: Path) -> None:
    paths = [make_video(tmp_path / f"{n}.mp4", size=(48, 32), frames=20) for n in range(3)]
    tasks = [DecodeTask(path, (40, 24), Fraction(16), 9) for path in paths]
    given: list[int] = []

    class Noted(decode_pool._Worker):
        def events(self, task: Any) -> Any:
            given.append(task.threads)
            return super().events(task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_pool, "_Worker", Noted)
        found = drain(Pool(tasks, workers=2))
    assert sorted(given) == [1, 1, 2]
    for index, events in drain(Inline(tasks)).items():
        assert [type(event) for event in events] == [type(event) for event in found[index]]
        for one, other in zip(events, found[index], strict=True):
            if isinstance(one, Frames):
                assert np.array_equal(one.pictures, other.pictures)


def test_a_crash_and_a_hang_cost_their_own_task_only() -> None:
    tasks: list[Any] = [Crash(), Hang(), Count(2, value=7)]
    found = drain(Pool(tasks, workers=1))
    assert isinstance(found[0][0], Frames)
    assert found[0][1] == Broken("crashed", "the process that decoded it ended with code -6")
    assert found[1] == [Broken("timeout", "no frame for 0.2 s")]
    assert [event.pictures[0, 0, 0, 0] for event in found[2]] == [7, 8]


def test_a_first_look_that_kills_or_hangs_a_decoder_costs_its_source_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "dying_decoder"))
    names = ("crash-1-0.mp4", "hang-1-0.mp4", "good.mp4")
    paths = [make_video(tmp_path / name, size=(48, 32), frames=20) for name in names]
    found = drain(Pool([LookTask(path, patience=2.0) for path in paths], workers=1))
    assert found[0] == [Broken("crashed", "the process that decoded it ended with code -9")]
    assert found[1] == [Broken("timeout", "no frame for 2 s")]
    assert found[2] == drain(Inline([LookTask(paths[2])]))[0]


def test_a_worker_stops_when_it_is_far_enough_ahead() -> None:
    pool = Pool([Count(40)], workers=1, ahead=3 * 8 * 4 * 6 * 3)
    with pool:
        stream: Any = pool.ready()
        before = -1
        while len(stream.events) > before:
            before = len(stream.events)
            time.sleep(0.3)
        assert len(stream.events) == 3
        assert len([stream.take() for _ in range(40)]) == 40


def test_a_worker_stops_when_enough_of_finished_tasks_waits() -> None:
    one = 8 * 4 * 6 * 3
    tasks: list[Any] = [Count(2) for _ in range(30)]
    with Pool(tasks, workers=1, ahead=3 * one) as pool:
        assert pool.ready() is not None
        before = -1
        while (waiting := sum(stream.bytes for stream in pool._streams)) > before:
            before = waiting
            time.sleep(0.3)
        assert 3 * one <= waiting <= 6 * one
        assert [type(pool.stream(index).take()) for index in range(2)] == [Frames, Frames]
        while (stream := pool.ready()) is not None:
            stream.take()


def test_tasks_can_be_read_in_their_order() -> None:
    tasks: list[Any] = [Count(2, value=10 * number) for number in range(9)]
    for decoder in (Pool(tasks, workers=2, ahead=1), Inline(tasks)):
        with decoder:
            seen = []
            for index in range(len(tasks)):
                stream = decoder.stream(index)
                while (event := stream.take()) is not None:
                    seen.append(event.pictures[0, 0, 0, 0])
            assert seen == [10 * number + chunk for number in range(9) for chunk in range(2)]
            assert decoder.ready() is None


def test_signs_of_life_keep_a_task_that_works_long_for_an_event() -> None:
    tasks: list[Any] = [Slow(seconds=1.4, patience=0.7)]
    assert drain(Pool(tasks, workers=1)) == {0: ["made"]}
    assert drain(Inline(tasks)) == {0: ["made"]}


def test_no_process_is_left_when_the_reader_leaves_early() -> None:
    tasks: list[Any] = [ProcessOf(), Count(1000)]
    with Pool(tasks, workers=1, ahead=1) as pool:
        child = pool.stream(0).take()
        os.kill(child, 0)  # it runs
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_ctrl_c_does_not_end_a_process_that_is_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    late = "import time; time.sleep(1.5); " + decode_pool._COMMAND[-1]
    monkeypatch.setattr(decode_pool, "_COMMAND", [*decode_pool._COMMAND[:-1], late])
    pool = Pool([Count(2, value=7)], workers=1)
    while (process := pool._workers[0]._process) is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert [event.pictures[0, 0, 0, 0] for event in drain(pool)[0]] == [7, 8]


def test_no_task_needs_no_process() -> None:
    assert drain(open_decoder([], 4)) == {}


def test_workers_suit_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, cpu, gpu in ((1, 1, 1), (2, 1, 1), (16, 8, 15), (200, 32, 32)):
        monkeypatch.setattr(
            decode_pool.os, "sched_getaffinity", lambda pid, n=cores: set(range(n)), raising=False
        )
        assert (worker_count(on_gpu=False), worker_count(on_gpu=True)) == (cpu, gpu)


def test_processes_that_cannot_start_are_an_error_of_no_video(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode_pool, "_COMMAND", [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(WorkFailed, match="code 3"):
        drain(Pool([Count(1)], workers=1))
