"""Parts of the work of one output folder."""

from pathlib import Path

import pytest

from ttvcli.errors import UsageError
from ttvcli.workflows.shards import Shard, finished_parts, write_part_report, writing


def test_every_item_is_in_exactly_one_part_and_parts_are_even() -> None:
    names = [f"folder/{number}.mp4" for number in range(2000)]
    parts = [Shard(index, 8) for index in range(1, 9)]
    owners = [[part.index for part in parts if part.owns(name)] for name in names]
    assert all(len(owner) == 1 for owner in owners)
    counts = [sum(owner == [index] for owner in owners) for index in range(1, 9)]
    assert min(counts) > 200


def test_a_part_is_known_by_its_text() -> None:
    assert Shard.parse("") is None
    assert Shard.parse("2/8") == Shard(2, 8)
    assert Shard(2, 8).manifest == "manifest.2-of-8.jsonl"
    for wrong in ("0/8", "9/8", "2", "2/0", "a/b", "-1/2", "2/8/1"):
        with pytest.raises(UsageError, match="I/N"):
            Shard.parse(wrong)


def test_undecodable_names_have_a_part() -> None:
    assert sum(Shard(index, 3).owns("\udcff.mp4") for index in (1, 2, 3)) == 1


def test_parts_write_together_but_not_beside_the_whole(tmp_path: Path) -> None:
    with writing(tmp_path, Shard(1, 2)), writing(tmp_path, Shard(2, 2)):
        with pytest.raises(UsageError, match="another process"), writing(tmp_path, None):
            pass
        with pytest.raises(UsageError, match="1-of-2"), writing(tmp_path, Shard(1, 2)):
            pass
    with (
        writing(tmp_path, None),
        pytest.raises(UsageError, match="no --shard"),
        writing(tmp_path, Shard(1, 2)),
    ):
        pass


def test_parts_are_finished_when_all_saw_the_same_items(tmp_path: Path) -> None:
    write_part_report(tmp_path, Shard(1, 2), "abc", {"n": 1})
    assert finished_parts(tmp_path, Shard(1, 2), "abc") is None
    write_part_report(tmp_path, Shard(2, 2), "other", {})
    assert finished_parts(tmp_path, Shard(1, 2), "abc") is None
    write_part_report(tmp_path, Shard(2, 2), "abc", {"n": 2})
    found = finished_parts(tmp_path, Shard(1, 2), "abc")
    assert found is not None
    assert [report["n"] for report in found] == [1, 2]
