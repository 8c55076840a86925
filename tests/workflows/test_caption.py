"""`prep caption`: captions are found where they stand, judged, replaced if need be, never lost."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from video_files import cut_short, make_video

from ttvcli.artifacts.atomic import append_line
from ttvcli.artifacts.captions import read_caption_table
from ttvcli.artifacts.manifest import read_manifest
from ttvcli.core.video.segment_frames import FrameChoice
from ttvcli.errors import ArtifactError, Interrupted, UsageError, WorkFailed
from ttvcli.workflows import caption_model
from ttvcli.workflows.caption import CaptionConfig, CaptionResult, plan, run
from ttvcli.workflows.caption_ask import JOURNAL_NAME
from ttvcli.workflows.caption_model import FAILED, NoCaption, View
from ttvcli.workflows.caption_sources import load_library
from ttvcli.workflows.step import Silent
from ttvcli.workflows.synth import SynthConfig
from ttvcli.workflows.synth import run as synth
from ttvcli.workflows.video_sources import clip_segments, find_sources

GOOD = "a brown dog runs along the beach"
GERMAN = "ein brauner Hund läuft am Strand entlang und bellt laut"
ANSWER = "A grey field lies in even light while a white line moves to the right."


@pytest.fixture(autouse=True)
def decode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without worker processes, which is faster: they have tests of their own."""
    monkeypatch.setattr(caption_model, "worker_count", lambda *, on_gpu: 0)


class Counting:
    """A captioner that says the same of everything, and remembers what it was asked."""

    source = "endpoint:counting"
    settings: dict[str, object] = {"captioner": "counting"}
    choice = FrameChoice(count=2)

    def __init__(self, answer: Callable[[View], str] = lambda view: ANSWER, at_once: int = 1):
        self.answer = answer
        self.concurrency = at_once
        self.asked: list[str] = []
        self.stopped = False

    def __call__(self, view: View) -> str:
        self.asked.append(view.name)
        return self.answer(view)

    def stop(self) -> None:
        self.stopped = True


def caption(source: Path, captioner: Counting | None = None, **settings: Any) -> CaptionResult:
    config = CaptionConfig(
        source=str(source), captioner="tiny-world" if captioner else "", **settings
    )
    return run(config, load=lambda _: captioner or pytest.fail("nobody is to be asked"))


def video(path: Path, seconds: int = 1) -> Path:
    return make_video(path, frames=2 * seconds, fps=2, size=(32, 16))


def segments(folder: Path) -> list[list[dict[str, Any]]]:
    return [record["segments"] for record in read_manifest(folder) if "segments" in record]


def captions(folder: Path) -> list[list[tuple[str, str]]]:
    return [[(s["caption"], s.get("caption_source", "")) for s in row] for row in segments(folder)]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Two clips with a manifest: of six segments, one is missing and one is not English."""
    folder = tmp_path / "clips"
    records = []
    for name, texts in (("a", [GOOD, "", GOOD]), ("b", [GERMAN, GOOD, GOOD])):
        video(folder / f"{name}.mp4", 9)
        spans = [
            {
                "start": 3.0 * i,
                "end": 3.0 * i + 3,
                "caption": text,
                "shot": i,
                "scene_start": i == 0,
            }
            for i, text in enumerate(texts)
        ]
        records.append({"id": name, "path": f"{name}.mp4", "mine": {"x": 1}, "segments": spans})
    records.append({"id": "c", "path": "absent.mp4", "keep": False, "reasons": ["blur"]})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "manifest.jsonl").write_text(lines)
    return folder


def test_captions_are_found_wherever_they_stand(tmp_path: Path) -> None:
    names = ("text", "table", "sub/nested", "listed", "sub/listed", "none")
    for name in names:
        video(tmp_path / f"{name}.mp4")
    (tmp_path / "text.txt").write_text(f"{GOOD}\r\n")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "table.mp4", "text": GOOD}))
    (tmp_path / "sub" / "metadata.csv").write_text(f"file_name,caption\nnested.mp4,{GOOD}\n")
    (tmp_path / "prompts.txt").write_text(f"{GOOD}\n{GOOD}\n")
    (tmp_path / "videos.txt").write_text("listed.mp4\nsub/listed.mp4\n")
    result = caption(tmp_path, sheets=False)
    found = {record["path"]: record["segments"][0] for record in read_manifest(tmp_path)}
    assert {path: span.get("caption_source") for path, span in found.items()} == {
        "listed.mp4": "prompts",
        "none.mp4": None,
        "sub/listed.mp4": "prompts",
        "sub/nested.mp4": "metadata",
        "table.mp4": "metadata",
        "text.mp4": "sidecar",
    }
    assert {span["language"] for span in found.values() if span["caption"]} == {"en"}
    assert [entry["item"] for entry in result.failed] == ["none.mp4, 0 to 1 s"]


def test_only_what_needs_a_caption_is_asked_for_and_all_else_survives(split: Path) -> None:
    before = read_manifest(split)
    captioner = Counting()
    result = caption(split, captioner)
    assert captioner.asked == ["a.mp4 at 3 s", "b.mp4 at 0 s"]
    assert (result.captioned, result.open, result.failed) == (2, 0, [])
    after = read_manifest(split)
    assert captions(split)[0][1] == captions(split)[1][0] == (ANSWER, captioner.source)
    assert after[1]["segments"][0]["replaced"] == [
        {"caption": GERMAN, "language": "de", "caption_source": "manifest"}
        | {"caption_problem": "non_english"}
    ]
    assert "replaced" not in after[0]["segments"][1]
    assert after[2] == before[2]
    for old, new in zip(before[:2], after[:2], strict=True):
        assert {**new, "segments": 0} == {**old, "segments": 0}
        for was, now in zip(old["segments"], new["segments"], strict=True):
            assert (now["start"], now["end"], now["shot"], now["scene_start"]) == (
                *(was["start"], was["end"], was["shot"], was["scene_start"]),
            )
            assert now["caption"] in (was["caption"], ANSWER)


def test_a_second_run_asks_nobody_and_changes_nothing(split: Path) -> None:
    caption(split, Counting())
    before = (split / "manifest.jsonl").read_bytes()
    captioner = Counting()
    assert caption(split, captioner).captioned == 0
    assert captioner.asked == []
    assert (split / "manifest.jsonl").read_bytes() == before
    assert not (split / JOURNAL_NAME).exists()


def test_force_replaces_good_captions_and_keeps_them_beside(split: Path) -> None:
    captioner = Counting()
    caption(split, captioner, force=True)
    assert len(captioner.asked) == 6
    assert {text for row in captions(split) for text, _ in row} == {ANSWER}
    assert segments(split)[0][0]["replaced"][0]["caption"] == GOOD
    other = Counting(lambda view: "A second model sees a dark field and a white line.")
    caption(split, other, force=True)
    kept = [entry["caption"] for entry in segments(split)[1][0]["replaced"]]
    assert kept == [GERMAN, ANSWER]


def test_another_folder_leaves_the_clips_as_they_are(split: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in split.iterdir()}
    out = tmp_path / "out"
    caption(split, Counting(), out=out)
    assert {path.name: path.read_bytes() for path in split.iterdir()} == before
    assert [record["path"] for record in read_manifest(out)][:2] == [
        "../clips/a.mp4",
        "../clips/b.mp4",
    ]
    again = Counting()
    assert caption(split, again, out=out).captioned == 0
    assert again.asked == []
    assert captions(out)[0][1][0] == ANSWER


def test_a_correction_in_the_clips_wins_over_an_earlier_answer(split: Path, tmp_path: Path) -> None:
    caption(split, Counting(), out=tmp_path / "out")
    manifest = split / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace(json.dumps(GERMAN), '"a dog on a beach"'))
    again = Counting()
    caption(split, again, out=tmp_path / "out")
    assert again.asked == []
    assert captions(tmp_path / "out")[1][0] == ("a dog on a beach", "manifest")


def test_a_killed_run_asks_for_no_caption_twice(split: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(view: View) -> str:
        if "b.mp4" in view.name:
            raise Killed
        return ANSWER

    first = Counting(die)
    with pytest.raises(Killed):
        caption(split, first)
    append = (split / JOURNAL_NAME).read_text() + '{"id": "torn'
    (split / JOURNAL_NAME).write_text(append)
    second = Counting()
    caption(split, second)
    assert second.asked == ["b.mp4 at 0 s"]
    assert captions(split)[0][1] == captions(split)[1][0] == (ANSWER, second.source)
    assert not (split / JOURNAL_NAME).exists()


def test_answers_for_a_video_that_has_changed_are_not_used(split: Path) -> None:
    def stop(view: View) -> str:
        if "b.mp4" in view.name:
            raise WorkFailed("gone")
        return ANSWER

    with pytest.raises(WorkFailed):
        caption(split, Counting(stop))
    video(split / "a.mp4", 10)
    second = Counting()
    caption(split, second)
    assert second.asked == ["a.mp4 at 3 s", "b.mp4 at 0 s"]


@pytest.mark.parametrize("suffix", [".json", ".ndjson"])
def test_a_manifest_may_have_another_suffix(split: Path, suffix: str) -> None:
    named = (split / "manifest.jsonl").rename(split / f"clips{suffix}")
    library = load_library(str(named), None, 0)
    assert [clip.path.name for clip in library.clips.values()] == ["a.mp4", "b.mp4"]


def test_many_at_a_time_give_the_same_manifest(split: Path, tmp_path: Path) -> None:
    caption(split, Counting(), out=tmp_path / "one", force=True)
    caption(split, Counting(at_once=3), out=tmp_path / "many", force=True)
    files = [(tmp_path / name / "manifest.jsonl").read_bytes() for name in ("one", "many")]
    assert files[0] == files[1]


def test_a_run_that_breaks_off_tells_the_captioner(split: Path) -> None:
    def fail(view: View) -> str:
        raise WorkFailed("no credit left")

    captioner = Counting(fail, at_once=2)
    with pytest.raises(WorkFailed):
        caption(split, captioner)
    assert captioner.stopped


def test_what_was_answered_when_the_run_stops_is_kept(split: Path) -> None:
    class Stopping(Silent):
        def advance(self, n: int = 1, **fields: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    config = CaptionConfig(source=str(split), captioner="tiny-world", force=True)
    with pytest.raises(Interrupted):
        run(config, Stopping(), load=lambda _: Counting())
    kept = len((split / JOURNAL_NAME).read_text().splitlines())
    again = Counting()
    caption(split, again, force=True)
    assert len(again.asked) == 6 - kept < 6


def test_without_anybody_to_ask_a_table_and_sheets_are_made(split: Path) -> None:
    result = caption(split)
    assert result.fill_in == split / "captions.todo.jsonl"
    rows = [json.loads(line) for line in result.fill_in.read_text().splitlines()]
    assert [(row["path"], row["segment"], row["start"], row["problem"]) for row in rows] == [
        ("a.mp4", 1, 3.0, "missing"),
        ("b.mp4", 0, 0.0, "non_english"),
    ]
    assert rows[1]["present"] == GERMAN
    for row in rows:
        assert (split / row["contact_sheet"]).read_bytes().startswith(b"\x89PNG")
    assert [entry["reason"] for entry in result.failed] == ["missing", "non_english"]
    assert captions(split)[1][0][0] == GERMAN  # nothing better is known
    assert segments(split)[1][0]["caption_problem"] == "non_english"


@pytest.mark.parametrize("name", ["captions.todo.jsonl", "todo.csv"])
def test_what_is_filled_in_is_read_back(split: Path, name: str) -> None:
    table = split / name
    fill_in = None if name.startswith("captions") else table
    caption(split, fill_in=fill_in)
    lines = table.read_text("utf-8").splitlines(keepends=True)
    hand = "a man waves from a boat"
    lines[-1] = lines[-1].replace('""}', f'"{hand}"}}').rstrip("\n")
    lines[-1] = lines[-1] + hand if name.endswith("csv") else lines[-1]
    table.write_text("".join(lines), "utf-8")
    half = caption(split, fill_in=fill_in)  # not read, but not lost either
    assert (half.captioned, half.open) == (0, 2)
    assert hand in table.read_text()
    with pytest.raises(UsageError, match="filled in by hand"):
        caption(split, Counting(), fill_in=fill_in)
    read = caption(split, fill_in=fill_in, from_file=table)
    assert (read.captioned, read.open) == (1, 1)
    assert captions(split)[1][0] == (hand, "hand")
    assert segments(split)[1][0]["replaced"][0]["caption"] == GERMAN
    done = caption(split, Counting(), fill_in=fill_in)
    assert done.open == 0
    assert not table.exists()
    assert not list(split.glob("**/*.png"))


def test_a_bad_caption_in_the_table_is_refused_and_kept(split: Path) -> None:
    caption(split, sheets=False)
    table = split / "captions.todo.jsonl"
    table.write_text(table.read_text().replace('"caption": ""', '"caption": "a dog"'))
    result = caption(split, sheets=False, from_file=table)
    assert {entry["reason"] for entry in result.failed} == {"too_short"}
    assert table.read_text().count('"caption": "a dog"') == 2


def test_rows_of_segments_that_are_not_there_are_told(split: Path, tmp_path: Path) -> None:
    class Listening(Silent):
        told: list[str] = []

        def warn(self, text: str) -> None:
            self.told.append(text)

    table = tmp_path / "mine.csv"
    table.write_text(f"id,segment,text\na,1,{ANSWER}\na,3,{ANSWER}\nb,7,{ANSWER}\n")
    result = run(CaptionConfig(source=str(split), from_file=table, sheets=False), Listening())
    assert result.captioned == 1
    assert any("mine.csv: 2 rows for segments" in text for text in Listening.told)


def test_any_table_can_be_given_and_good_captions_need_force(split: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text(f"video,start,text\n{split}/a.mp4,3,{ANSWER}\nb,,{ANSWER}\nx.mp4,,{ANSWER}\n")
    caption(split, from_file=table, sheets=False)
    assert [text for text, _ in captions(split)[0]] == [GOOD, ANSWER, GOOD]
    assert [text for text, _ in captions(split)[1]] == [ANSWER, GOOD, GOOD]
    report = json.loads((split / "captions.json").read_text())
    assert (report["rows_without_clip"], report["captioned"]) == (1, {"hand": 2})
    caption(split, from_file=table, sheets=False, force=True)
    assert [text for text, _ in captions(split)[1]] == [ANSWER] * 3


def test_unusable_answers_are_told_and_the_rest_goes_on(split: Path) -> None:
    texts = {"a": "I'm sorry, I cannot help with that.", "b": f"The video shows {GOOD}."}
    result = caption(split, Counting(lambda view: texts[view.name[0]]), sheets=False)
    (entry,) = result.failed
    assert (entry["item"], entry["reason"]) == ("a.mp4, 3 to 6 s", "unusable_answer")
    assert captions(split)[1][0][0] == GOOD[0].upper() + GOOD[1:] + "."


def test_a_captioner_that_never_answers_ends_the_run(tmp_path: Path) -> None:
    for number in range(10):
        video(tmp_path / f"{number}.mp4")

    def fail(view: View) -> str:
        raise NoCaption(FAILED, "HTTP 500")

    captioner = Counting(fail)
    with pytest.raises(WorkFailed, match="8 times"):
        caption(tmp_path, captioner)
    assert len(captioner.asked) == 8


def test_videos_without_segments_get_one_for_each_three_seconds(tmp_path: Path) -> None:
    video(tmp_path / "long.mp4", 10)
    video(tmp_path / "short.mp4", 2)
    (tmp_path / "short.txt").write_text(GERMAN)
    captioner = Counting()
    caption(tmp_path, captioner)
    spans = [[(s["start"], s["end"]) for s in row] for row in segments(tmp_path)]
    assert spans == [[(0.0, 3.0), (3.0, 6.0), (6.0, 10.0)], [(0.0, 2.0)]]
    assert len(captioner.asked) == 4
    assert segments(tmp_path)[1][0]["replaced"][0]["caption_source"] == "sidecar"


def test_one_good_caption_for_a_whole_video_stays_one(tmp_path: Path) -> None:
    video(tmp_path / "long.mp4", 10)
    (tmp_path / "long.txt").write_text(GOOD)
    caption(tmp_path, Counting())
    assert captions(tmp_path) == [[(GOOD, "sidecar")]]


def test_damaged_videos_are_told_and_the_others_captioned(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4", 3)
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "manifest.jsonl").write_text(
        json.dumps({"path": "short.mp4", "segments": [{"start": 0.0, "end": 3.0, "caption": ""}]})
        + "\n"
        + "".join(json.dumps({"path": name}) + "\n" for name in ("whole.mp4", "text.mp4"))
    )
    cut_short(whole, tmp_path / "short.mp4", 0.5)
    result = caption(tmp_path, Counting())
    assert {entry["item"].partition(",")[0]: entry["reason"] for entry in result.failed} == {
        "short.mp4": "truncated",
        "text.mp4": "not_a_video",
    }
    assert result.captioned == 1


def test_the_same_text_beside_many_videos_is_boilerplate(tmp_path: Path) -> None:
    advertisement = "Holiday in the mountains with all my family"
    lines = [json.dumps({"path": f"{i}.mp4", "caption": f"{advertisement} {i}"}) for i in range(20)]
    lines.append(json.dumps({"path": "x.mp4", "caption": GOOD}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    config = CaptionConfig(source=str(tmp_path))
    assert dict(plan(config).items)["  repeated"] == 20
    assert dict(plan(CaptionConfig(source=str(tmp_path), repeats=0)).items)["to caption"] == 0


def test_the_plan_counts_and_writes_nothing(split: Path) -> None:
    before = sorted(split.iterdir())
    items = dict(plan(CaptionConfig(source=str(split), captioner="https://nobody.invalid")).items)
    assert (items["videos"], items["segments"], items["to caption"]) == (2, 6, 2)
    assert (items["  missing"], items["  non_english"], items["left out"]) == (1, 1, 1)
    assert sorted(split.iterdir()) == before


def test_names_that_are_no_unicode_and_twins_are_told_apart(tmp_path: Path) -> None:
    odd = tmp_path / "clips" / "b\udcff.mp4"
    video(tmp_path / "clips" / "a b.mp4").rename(tmp_path / "clips" / "a_b.mp4")
    video(tmp_path / "clips" / "a b.mp4")
    video(tmp_path / "x.mp4").rename(odd)
    result = caption(tmp_path / "clips")
    assert len(list((tmp_path / "clips" / "captions.todo").iterdir())) == 3
    assert result.fill_in is not None
    table = result.fill_in
    table.write_text(table.read_text().replace('"caption": ""', f'"caption": "{GOOD}"'))
    assert caption(tmp_path / "clips", from_file=table).open == 0


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"captioner": "no-such"}, UsageError, "no captioner"),
        ({"captioner": "{folder}"}, ArtifactError, "config.json"),
        ({"from_file": Path("absent.csv")}, ArtifactError, "no such table"),
        ({"instruction": Path("absent.txt"), "captioner": "http://x"}, ArtifactError, "cannot be"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    split: Path, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    given = {k: str(split) if v == "{folder}" else v for k, v in settings.items()}
    with pytest.raises(error, match=said):
        run(CaptionConfig(source=str(split), **given))
    assert not (split / "captions.json").exists()


def test_folders_of_something_else_are_refused(split: Path, tmp_path: Path) -> None:
    synth(SynthConfig(out=tmp_path / "synth", clips=1, size=16))
    with pytest.raises(UsageError, match="other settings"):
        caption(split, Counting(), out=tmp_path / "synth")
    (split / "ttv.json").write_text('{"kind": "latents"}')
    with pytest.raises(UsageError, match="holds latents"):
        caption(split, Counting())
    (split / "ttv.json").write_text('{"kind": "filtered"}')
    for step in (run, plan):  # what `prep filter` wrote is passed on with --out
        with pytest.raises(UsageError, match="holds verdicts") as caught:
            step(CaptionConfig(source=str(split)))
        assert "--out" in caught.value.fix


def test_the_result_is_what_encode_reads(tmp_path: Path) -> None:
    """Its own segments of a clip, by time, with the captions that were written."""
    video(tmp_path / "long.mp4", 6)
    texts = iter([f"A white line moves to the {side} side." for side in ("left", "right")])
    caption(tmp_path, Counting(lambda view: next(texts)))
    (source,) = find_sources(tmp_path).videos
    got = clip_segments(source.segments(), 0.0, [(0.0, 3.0), (3.0, 6.0)])
    assert [(s["caption"].split()[-2], s["caption_source"], s["language"]) for s in got] == [
        ("left", "endpoint:counting", "en"),
        ("right", "endpoint:counting", "en"),
    ]


def test_an_unreadable_journal_line_in_the_middle_is_told(split: Path) -> None:
    (split / JOURNAL_NAME).write_text("broken\n")
    append_line(split / JOURNAL_NAME, '{"id": "x", "caption": "y"}')
    with pytest.raises(ArtifactError, match="line 1"):
        caption(split, Counting())


def test_rows_of_a_table_beside_the_videos_that_name_none_of_them_are_told(
    tmp_path: Path,
) -> None:
    video(tmp_path / "raw" / "sub" / "a.mp4")
    video(tmp_path / "raw" / "b.mp4")
    (tmp_path / "raw" / "metadata.csv").write_text(
        f"file_name,text\nsub/a.mp4,{GOOD}\nraw/b.mp4,{GOOD} too\nc.mp4,{GOOD} again\n"
    )
    warned = []

    class Listening(Silent):
        def warn(self, text: str) -> None:
            warned.append(text)

    config = CaptionConfig(source=str(tmp_path / "raw"), out=tmp_path / "out", sheets=False)
    assert dict(plan(config).items)[f"rows for no clip in {tmp_path / 'raw' / 'metadata.csv'}"] == 2
    run(config, Listening())
    assert (
        "metadata.csv: 2 rows for no clip of this manifest, the first one for 'raw/b.mp4'"
        in (warned[0])
    )
    assert json.loads((tmp_path / "out" / "captions.json").read_text())["rows_without_clip"] == 2


def test_paths_hold_where_the_folders_are_links(tmp_path: Path) -> None:
    clip = video(tmp_path / "disk" / "raw" / "a.mp4")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "far" / "away" / "m.jsonl").write_text('{"path": "../../disk/raw/a.mp4"}\n')
    for name, target in (("in", "far/away"), ("out", "disk")):
        (tmp_path / name).symlink_to(target)
    caption(tmp_path / "in" / "m.jsonl", out=tmp_path / "out" / "captioned")
    caption(tmp_path / "in" / "m.jsonl", out=tmp_path / "captioned")
    for folder in (tmp_path / "out" / "captioned", tmp_path / "captioned"):
        for lines in (read_manifest(folder), read_manifest(folder / "captions.todo.jsonl")):
            assert (folder / lines[0]["path"]).samefile(clip)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_handwork_for_a_name_that_is_no_unicode_is_kept_and_taken(
    tmp_path: Path, suffix: str
) -> None:
    raw, table = tmp_path / "raw", tmp_path / f"todo.{suffix}"
    video(raw / "a.mp4").rename(os.fsdecode(os.fsencode(raw) + b"/caf\xe9.mp4"))
    given: dict[str, Any] = {"out": tmp_path / "out", "fill_in": table, "sheets": False}
    caption(raw, **given)
    rows = read_caption_table(table)
    text = table.read_text(encoding="utf-8-sig")
    filled = text.replace('"caption": ""', f'"caption": "{GOOD}"').replace(",,\n", f",,{GOOD}\n")
    table.write_text(filled)
    caption(raw, **given)  # writes the table again
    assert [row.caption for row in read_caption_table(table)] == [GOOD] * len(rows)
    assert caption(raw, **given, from_file=table).open == 0


def test_what_an_earlier_run_captioned_elsewhere_is_told_and_not_planned_again(
    split: Path, tmp_path: Path
) -> None:
    told = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            told.append(text)

    out = tmp_path / "out"
    first = CaptionConfig(source=str(split), captioner="tiny-world", out=out)
    assert dict(plan(first).items)["to caption"] == 2
    caption(split, Counting(), out=out)
    items = dict(plan(first).items)
    assert (items["captioned by an earlier run"], items["to caption"]) == (2, 0)
    run(first, Listening(), load=lambda _: pytest.fail("nobody is to be asked"))
    assert "2 segments captioned by an earlier run, 0 left" in told


def test_reading_has_ended_before_its_result_is_told(tmp_path: Path) -> None:
    video(tmp_path / "raw" / "a.mp4")
    told: list[str] = []

    class Listening(Silent):
        def start(
            self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
        ) -> None:
            told.append(f"{description} begins")

        def finish(self) -> None:
            told.append("ends")

        def note(self, text: str) -> None:
            told.append(text)

    config = CaptionConfig(source=str(tmp_path / "raw"), out=tmp_path / "out", sheets=False)
    run(config, Listening())
    assert told[:3] == ["reading begins", "ends", "1 segment, 1 to caption: 1 missing"]


def test_a_signal_ends_a_run_that_asks_nobody_at_once(tmp_path: Path) -> None:
    video(tmp_path / "raw" / "a.mp4")
    video(tmp_path / "raw" / "b.mp4")
    stages: list[str] = []

    class Signalling(Silent):
        def start(
            self, description: str, total: int | None = None, unit: str = "", *, done: int = 0
        ) -> None:
            stages.append(description)

        def advance(self, n: int = 1, **fields: Any) -> None:
            if len(stages) == 1:
                stages.append("a signal")
                os.kill(os.getpid(), signal.SIGINT)

    config = CaptionConfig(source=str(tmp_path / "raw"), out=tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run(config, Signalling())
    assert stages == ["reading", "a signal"]  # it was not only ended when all sheets were drawn
    assert caption(tmp_path / "raw", out=tmp_path / "out").open == 2


@pytest.mark.parametrize("column", ["start", "segment"])
def test_rows_for_segments_of_a_video_that_has_none_yet_go_to_their_seconds(
    tmp_path: Path, column: str
) -> None:
    video(tmp_path / "raw" / "a.mp4", seconds=8)
    video(tmp_path / "raw" / "b.mp4", seconds=3)
    at = {"start": (0, 6, 4.2), "segment": (0, 2, 7)}[column]
    (tmp_path / "raw" / "metadata.csv").write_text(
        f"file_name,{column},text\na.mp4,{at[0]},{GOOD}\na.mp4,{at[1]},{GOOD} again\n"
        f"a.mp4,{at[2]},{GOOD} never\nb.mp4,,{GOOD} too\n"
    )
    warned: list[str] = []

    class Listening(Silent):
        def warn(self, text: str) -> None:
            warned.append(text)

    config = CaptionConfig(source=str(tmp_path / "raw"), out=tmp_path / "out", sheets=False)
    run(config, Listening())
    a, b = (record["segments"] for record in read_manifest(tmp_path / "out"))
    assert [(s["start"], s["end"], s["caption"]) for s in a] == [
        (0.0, 3.0, GOOD),
        (3.0, 6.0, ""),
        (6.0, 8.0, f"{GOOD} again"),
    ]
    assert [s["caption"] for s in b] == [f"{GOOD} too"]
    assert "1 row for segments that their clip does not have, the first one of 'a.mp4'" in warned[0]
