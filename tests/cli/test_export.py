"""`ttv export` from the command line."""

import json
from pathlib import Path

from helpers import run_ttv


def test_a_model_is_exported_and_described(tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned = run_ttv("export", "tiny", "--out", out, "--dry-run", "--json").json["plan"]
    assert planned["items"]["from"] == "model tiny"
    assert planned["items"]["to"] == "diffusers"
    assert planned["bytes"]["disk"] > 20_000_000
    assert not out.exists()
    ran = run_ttv("export", "tiny", "--out", out, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.json == {"paths": [str(out)], "from": "model", "to": "diffusers"}
    told, original = (run_ttv("info", path, "--json").json for path in (out, "tiny"))
    assert told["family"] == original["family"] == "tiny with TTT-Linear"
    assert told["transformer"] == original["transformer"]
    saved = tmp_path / "dcp"
    assert run_ttv("export", out, "--format", "ttt-video", "--out", saved).code == 0
    assert run_ttv("info", saved, "--json").json["kind"] == "export"


def test_a_storyboard_is_exported_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("one\ntwo\n")
    ran = run_ttv("export", tmp_path / "story.txt", "-o", tmp_path / "prompts.json")
    assert ran.code == 0, ran.stderr
    assert [s["text"] for s in json.loads((tmp_path / "prompts.json").read_text())[0]] == [
        "one",
        "two",
    ]
    assert "2 segments (6 s)" in ran.stderr


def test_mistakes_end_with_their_codes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_ttv("export", tmp_path / "nothing", "--out", out).code == 3
    assert run_ttv("export", "tiny", "--out", out, "--format", "gguf").code == 2
    assert run_ttv("export", "tiny", "--out", out, "--format", "sat").code == 2
    assert run_ttv("export", "tiny").code == 2
    assert not out.exists()
