"""`ttv prep caption` as a program: exit codes, output, a pipeline, and what a kill -9 leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chat_server import chat_server
from helpers import DYING, Ran, run_ttv
from video_files import make_video

from ttvcli.artifacts.embeddings import load_embeddings
from ttvcli.artifacts.manifest import read_manifest
from ttvcli.core.world.grammar import parse
from ttvcli.core.world.scene import Scene

if TYPE_CHECKING:
    from tiny_model import TinyData


def without_captions(folder: Path) -> Path:
    """Take the captions out of a manifest."""
    records = read_manifest(folder)
    for record in records:
        for span in record["segments"]:
            span |= {"caption": "", "language": "", "caption_source": ""}
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "manifest.jsonl").write_text(lines)
    return folder


def test_clips_of_the_tiny_world_go_from_no_captions_to_embeddings(
    tmp_path: Path, tiny_data: "TinyData"
) -> None:
    raw = tmp_path / "raw"
    assert run_ttv("prep", "synth", "--out", raw, "--clips", "2", "--size", "32").code == 0
    without_captions(raw)
    ran = run_ttv("prep", "caption", raw, "--captioner", "tiny-world", "--json")
    assert (ran.code, ran.json["captioned"], ran.json["open"]) == (0, 2, 0)
    how = ("--model", tiny_data.model, "--device", "cpu", "--quiet")
    assert run_ttv("prep", "encode", raw, "--out", tmp_path / "latents", *how).code == 0
    assert run_ttv("embed-text", tmp_path / "latents", "--out", tmp_path / "text", *how).code == 0
    truth = {record["id"]: record for record in read_manifest(raw)}
    for record in read_manifest(tmp_path / "text"):
        (span,) = record["segments"]
        assert (span["caption_source"], span["language"]) == ("tiny-world", "en")
        embedded = load_embeddings(tmp_path / "text" / record["path"])[2]["captions"]
        assert embedded == [span["caption"]]
        said = parse(span["caption"])
        assert said is not None
        drawn = Scene.from_json(truth[record["source_id"]]["world"]).segments[0]
        assert sorted((o["shape"], o["colour"], o["motion"]) for o in said["objects"]) == sorted(
            (o.shape, o.colour, o.motion) for o in drawn.objects
        )
        assert said["background"] in (None, drawn.background)


def test_segments_without_a_caption_end_with_exit_code_5_and_are_listed(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=6, fps=2, size=(32, 16))
    ran = run_ttv("prep", "caption", tmp_path)
    assert (ran.code, ran.stdout) == (5, f"{tmp_path / 'manifest.jsonl'}\n")
    assert "a.mp4, 0 to 3 s: missing" in ran.stderr
    assert "captions.todo.jsonl" in ran.stderr
    table = tmp_path / "captions.todo.jsonl"
    table.write_text(table.read_text().replace('"caption": ""', '"caption": "a line moves right"'))
    again = run_ttv("prep", "caption", tmp_path, "--from-file", table, "--json", "--quiet")
    assert (again.code, again.stderr) == (0, "")
    assert again.json == {
        "paths": [str(tmp_path / "manifest.jsonl")],
        "videos": 1,
        "segments": 1,
        "captioned": 1,
        "open": 0,
        "fill_in": None,
        "failed": [],
    }


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    """Two good videos; two that a decoder dies of, at once and after 5 of 6 s; two it hangs in."""
    for name in ("a", "crash-1-0", "crash-1-20", "hang-1-0", "hang-1-20", "z"):
        make_video(tmp_path / "in" / f"{name}.mp4", frames=24, fps=4, size=(32, 16))
    return tmp_path / "in"


DEADLY = [
    ("crash-1-0.mp4, 0 to the end", "crashed", "the process that decoded it ended with code -9"),
    ("crash-1-20.mp4, 3 to 6 s", "crashed", "the process that decoded it ended with code -9"),
    ("hang-1-0.mp4, 0 to the end", "timeout", "no frame for 3 s"),
    ("hang-1-20.mp4, 3 to 6 s", "timeout", "no frame for 3 s"),
]
ONE_PROCESS = ("--workers", "1", "--set", "patience=3", "--json")


def failures(ran: Ran) -> list[tuple[str, str, str]]:
    return [(entry["item"], entry["reason"], entry["detail"]) for entry in ran.json["failed"]]


def test_a_decoder_that_dies_or_hangs_costs_its_video_only(deadly: Path) -> None:
    words = ["prep", "caption", deadly]
    with chat_server() as server:
        how = ("--captioner", server.url)
        ran = run_ttv(*words, *how, *ONE_PROCESS, process=True, **DYING)
        assert (ran.code, failures(ran)) == (5, DEADLY)
        assert "Traceback" not in ran.stderr
        there = {
            record["path"]: [bool(span["caption"]) for span in record.get("segments", [])]
            for record in read_manifest(deadly)
        }
        # What was shown before its decoder died has a caption.
        assert there["a.mp4"] == there["z.mp4"] == [True, True]
        assert there["crash-1-20.mp4"] == there["hang-1-20.mp4"] == [True, False]
        assert not list(deadly.glob("captions.todo/*"))  # no decoder meets a deadly file again
        assert len(server.requests) == 6
        again = run_ttv(*words, *how, "--json")  # they are tried again, and nothing else
        assert (again.code, again.json["captioned"], again.json["open"]) == (0, 6, 0)
        whole = deadly.parent / "whole"
        shutil.copytree(deadly, whole, ignore=shutil.ignore_patterns("*.json*"))
        assert run_ttv("prep", "caption", whole, *how).code == 0
    assert (deadly / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()


def test_sheets_of_all_other_segments_are_drawn_when_a_decoder_dies_or_hangs(deadly: Path) -> None:
    ran = run_ttv("prep", "caption", deadly, *ONE_PROCESS, process=True, **DYING)
    assert ran.code == 5
    assert [found for found in failures(ran) if found[1] != "missing"] == DEADLY
    drawn = sorted(path.name for path in deadly.glob("captions.todo/*.png"))
    assert [(name.partition(".")[0], name[-8:-4]) for name in drawn] == [
        *(("a", "0000"), ("a", "0001"), ("crash-1-20", "0000")),
        *(("hang-1-20", "0000"), ("z", "0000"), ("z", "0001")),
    ]
    again = run_ttv("prep", "caption", deadly, "--json")
    assert {reason for _, reason, _ in failures(again)} == {"missing"}
    assert len(list(deadly.glob("captions.todo/*.png"))) == 12


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=6, fps=2, size=(32, 16))
    ran = run_ttv("prep", "caption", tmp_path, "--dry-run", "--json", "--captioner", "tiny-world")
    assert ran.code == 0
    assert ran.json["plan"]["items"]["to caption"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (["--captioner", "absent"], 2),
        (["--from-file", "absent.csv"], 3),
        (["--fill-in", "todo.txt"], 2),
        (["--style", "haiku"], 2),
    ],
)
def test_mistakes_have_their_exit_codes(tmp_path: Path, extra: list[str], code: int) -> None:
    make_video(tmp_path / "a.mp4", frames=6, fps=2, size=(32, 16))
    ran = run_ttv("prep", "caption", tmp_path, *extra)
    assert ran.code == code
    assert ran.stderr.startswith("error: ")


def test_a_manifest_can_be_piped_in_if_the_result_has_a_place(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=6, fps=2, size=(32, 16))
    line = json.dumps({"path": str(tmp_path / "a.mp4"), "caption": "a white line moves"}) + "\n"
    assert run_ttv("prep", "caption", "-", stdin=line).code == 2
    assert run_ttv("prep", "caption", "-", "--out", tmp_path / "out", stdin=line).code == 0
    (record,) = read_manifest(tmp_path / "out")
    assert record["segments"][0]["caption_source"] == "manifest"


def test_a_run_killed_at_any_moment_asks_for_no_caption_twice(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        for index in range(3):
            make_video(tmp_path / name / f"{index}.mp4", frames=12, fps=2, size=(32, 16))
    with chat_server() as server:
        how = ("--captioner", server.url, "--concurrency", "1")
        assert run_ttv("prep", "caption", tmp_path / "whole", *how).code == 0
    seen: list[int] = []

    def script(number: int) -> tuple[int, None, dict[str, str]]:
        seen.append(number)
        if number in (1, 4):  # the answer to a request before has been flushed by now
            victim.send_signal(signal.SIGKILL)
        return 200, None, {}

    with chat_server(script) as server:
        words = ["prep", "caption", str(tmp_path / "killed"), "--captioner", server.url]
        words += ["--concurrency", "1"]
        for _ in range(2):
            victim = subprocess.Popen(
                [sys.executable, "-m", "ttvcli", *words, "--quiet"],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            assert victim.wait(200) == -signal.SIGKILL
            time.sleep(0.01)
        assert run_ttv(*words).code == 0
    assert len(server.requests) == 6 + 2  # those two whose answers came too late
    manifests = [(tmp_path / n / "manifest.jsonl").read_bytes() for n in ("whole", "killed")]
    assert manifests[0] == manifests[1]
    assert not (tmp_path / "killed" / "captions.partial.jsonl").exists()
