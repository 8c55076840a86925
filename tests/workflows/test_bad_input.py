"""The folder of bad input goes through cutting and encoding: all is told, nothing is changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_corpus import ANYTHING, READABLE, Expected, build, contents
from model_files import write_vae
from step_outputs import snapshot

from ttvcli.artifacts.manifest import read_manifest
from ttvcli.workflows import encode, encode_job, split
from ttvcli.workflows.encode import EncodeConfig
from ttvcli.workflows.split import SplitConfig

# What becomes of a whole video that makes no clip.
NO_CLIP = {"too_short", "too_small"}


def judge(expected: Expected, out: Path, failed: list[dict[str, Any]]) -> None:
    """Every file gave clips or has a reason, and the reason is one that it may have."""
    report = json.loads((out / "report.json").read_text())
    gave = {record["source"] for record in read_manifest(out)}
    same = {entry["item"] for entry in report["duplicates"]}
    reasons = {entry["item"]: entry["reason"] for entry in failed}
    assert gave | same | reasons.keys() == expected.keys()
    assert not (gave | same) & reasons.keys()
    for name, allowed in expected.items():
        found = reasons.get(name)
        if found is None:
            assert allowed >= READABLE or allowed >= ANYTHING, name
        else:
            fits = found in allowed or allowed >= ANYTHING
            assert fits or (allowed == READABLE and found in NO_CLIP), f"{name!r}: {found}"


def twice(source: Path, out: Path, run: Callable[[], Any]) -> None:
    """Run a step two times on the folder and look at all it left."""
    expected = build(source)
    before = contents(source)
    judge(expected, out, run().failed)
    assert contents(source) == before
    whole = snapshot(out)
    run()
    assert snapshot(out) == whole


def test_cutting_tells_of_every_bad_file_and_touches_none(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    asked = SplitConfig(
        source=str(source),
        out=out,
        size="48x32",
        detector="none",
        preset="ultrafast",
        min_scene=0.5,
        short="hold",
    )
    twice(source, out, lambda: split.run(asked))
    assert len(read_manifest(out)) > 10


@pytest.mark.slow
def test_encoding_tells_of_every_bad_file_and_touches_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_job, "worker_count", lambda *, on_gpu: 0)
    source, out = tmp_path / "in", tmp_path / "out"
    model = write_vae(tmp_path / "model")
    asked = EncodeConfig(source=str(source), out=out, model=str(model), frames=9, device="cpu")
    twice(source, out, lambda: encode.run(asked))
    assert len(read_manifest(out)) > 10
