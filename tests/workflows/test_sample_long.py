"""Long videos: storyboards of every stage's length, scene marks, and errors that name a segment."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from helpers import Ran, run_ttv
from tiny_model import TOKENS, TinyData, write_model

from ttvcli.artifacts.model_folder import config_path
from ttvcli.core.models.text.tokenizer import END, END_SCENE, START_SCENE
from ttvcli.core.video.decode import read_frames
from ttvcli.errors import ArtifactError
from ttvcli.workflows.components import load_tokenizer
from ttvcli.workflows.sample import SampleConfig
from ttvcli.workflows.sample_request import Request, check

TEXTS = ["a red circle moves right", "a blue star bounces", "a green ring grows"]
# segments -> frames, latent frames
STAGES = {1: (49, 13), 3: (145, 37), 6: (289, 73), 10: (481, 121), 21: (1009, 253)}


def write_board(path: Path, count: int, **marks: Any) -> Path:
    """A storyboard of `count` texts; every second segment gets the marks."""
    segments: list[dict[str, Any]] = [{"text": TEXTS[i % len(TEXTS)]} for i in range(count)]
    for segment in segments[1::2]:
        segment.update(marks)
    path.write_text(json.dumps({"segments": segments}))
    return path


def dry(model: Path, *words: str | Path) -> Ran:
    return run_ttv("sample", *words, "--model", model, "--dry-run", "--json")


@pytest.mark.parametrize("count", STAGES)
def test_storyboards_of_every_stage_are_planned(
    count: int, tiny_data: TinyData, tmp_path: Path
) -> None:
    board = write_board(tmp_path / "story.json", count)
    items = dry(tiny_data.model, "--storyboard", board, "--seconds", str(3 * count)).json["plan"][
        "items"
    ]
    frames, latents = STAGES[count]
    assert items["video"] == f"16x16, {frames} frames"
    assert items["latents"] == f"[{latents}, 4, 2, 2]"
    assert [items[f"segment {i + 1}"] for i in range(count)] == [TEXTS[i % 3] for i in range(count)]


@pytest.mark.parametrize("count", STAGES)
@pytest.mark.parametrize("how", ["seconds", "frames"])
def test_a_prompt_is_repeated_over_the_segments(how: str, count: int, tiny_data: TinyData) -> None:
    length: dict[str, Any] = {"seconds": 3.0 * count, "frames": STAGES[count][0]}
    made = check(SampleConfig(prompt=TEXTS[0], model=str(tiny_data.model), **{how: length[how]}))
    assert made.board.prompts == [TEXTS[0]] * count
    assert (made.frames, made.seconds) == (STAGES[count][0], 3 * count)


def test_sixty_three_seconds_are_made(tiny_data: TinyData, tmp_path: Path) -> None:
    board = write_board(tmp_path / "story.json", 21, scene_start=True)
    out = tmp_path / "film.mp4"
    words = ("--model", tiny_data.model, "--steps", "1", "--guidance", "1", "--device", "cpu")
    ran = run_ttv("sample", "--storyboard", board, "-o", out, *words)
    assert ran.code == 0, ran.stderr
    assert sum(1 for _ in read_frames(out)) == 1009


def marked(model: Path, tmp_path: Path) -> Request:
    board = write_board(tmp_path / "story.json", 3, scene_start=True)
    return check(SampleConfig(storyboard=board, model=str(model)))


def foreign_tokenizer(model: Path) -> None:
    """Give a model a tokenizer that knows no scene tokens, as the public one."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 10),
        model_prefix=str(model / "tokenizer" / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )


def test_scene_marks_are_single_tokens_at_the_border_of_two_texts(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    made = marked(tiny_data.model, tmp_path)
    assert made.warnings == []
    tokenizer = load_tokenizer(made.folder)
    (end, _), (start, _) = tokenizer.encode(END_SCENE, 2), tokenizer.encode(START_SCENE, 2)
    before, after, last = (tokenizer.encode(text, TOKENS) for text in made.board.prompts)
    assert before[before.index(END) - 1] == end
    assert after[0] == start
    assert not {start, end} & {*before[: before.index(END) - 1], *after[1:], *last}
    plain = [tokenizer.encode(text, TOKENS) for text in TEXTS]
    assert [id for id in before if id != end] == [id for id in plain[0] if id][
        : before.index(END)
    ] + [0] * (TOKENS - before.index(END) - 1)


def test_a_ttt_model_with_the_public_tokenizer_gets_the_two_ids_behind_its_sentinels(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_data.model, tmp_path / "model")
    foreign_tokenizer(model)
    made = check(
        SampleConfig(
            storyboard=write_board(tmp_path / "story.json", 3, scene_start=True),
            model=str(model),
            text_tokens=60,
        )
    )
    pieces = sentencepiece.SentencePieceProcessor(
        model_file=str(model / "tokenizer" / "spiece.model")
    ).get_piece_size()
    tokenizer = load_tokenizer(model)
    ids = [tokenizer.encode(text, 60) for text in made.board.prompts]
    assert ids[1][0] == pieces + 100
    assert ids[0][ids[0].index(END) - 1] == pieces + 101
    # ... and a text encoder without rows for them is refused.
    path = config_path(model, "text_encoder")
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": pieces + 100}))
    with pytest.raises(ArtifactError, match="scene tokens need"):
        marked(model, tmp_path)


def test_a_model_that_never_saw_scene_tokens_gets_none(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", ssm="none", world="")
    assert marked(model, tmp_path).board.prompts[0].endswith(END_SCENE)  # its tokenizer has them
    foreign_tokenizer(model)
    board = write_board(tmp_path / "story.json", 3, scene_start=True)
    made = check(SampleConfig(storyboard=board, model=str(model), text_tokens=60))
    assert made.board.prompts == TEXTS
    assert made.warnings == ["the model has no scene tokens: scene marks are left out"]


# in the grammar of the tiny world: a text outside it is cut with a warning instead
LONG = (
    "a red circle moves right and a blue ring circles around "
    "in front of a gray gradient from left to right"
)
WRONG: list[tuple[Any, list[str], int, str]] = [
    ([TEXTS[0]] * 3, ["--seconds", "63"], 3, "3 segments of 3 s: 9 s in all, not 63 s"),
    ([TEXTS[0]] * 3, ["--frames", "97"], 3, "3 segments of 3 s: 9 s in all, not 6 s"),
    ([TEXTS[0]] * 3, ["--frames", "100"], 2, "--frames 97"),
    ([TEXTS[0]] * 3, ["--frames", "145", "--seconds", "6"], 2, "leave one of them out"),
    ([TEXTS[0]] * 3, ["--fps", "8"], 2, "segments of 3 s at 16 frames per second"),
    ([TEXTS[0], "", TEXTS[2]], [], 3, "segment 2: the text is empty"),
    ([TEXTS[0], {"text": "  "}], [], 3, "segment 2: the text is empty"),
    ([TEXTS[0], TEXTS[1], LONG], [], 3, "segment 3: its text has"),
    ([TEXTS[0], {"text": TEXTS[1], "negative": LONG}], [], 3, "segment 2: its negative text has"),
    ([TEXTS[0], {"text": TEXTS[1], "scene_end": True}], [], 3, "there is no key 'scene_end'"),
]


@pytest.mark.parametrize(("segments", "options", "code", "says"), WRONG)
def test_a_wrong_storyboard_is_one_error_that_names_the_segment(
    segments: list[Any],
    options: list[str],
    code: int,
    says: str,
    tiny_data: TinyData,
    tmp_path: Path,
) -> None:
    board = tmp_path / "story.json"
    board.write_text(json.dumps({"segments": segments}))
    words = ("--storyboard", board, "--model", tiny_data.model, "-o", tmp_path / "o.mp4")
    ran = run_ttv("sample", *words, *options, "--dry-run")
    assert ran.code == code, ran.stderr
    assert says in ran.stderr


def test_a_text_that_only_fits_without_its_scene_mark_is_over_the_budget(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    count = load_tokenizer(tiny_data.model).count(TEXTS[0])
    board = write_board(tmp_path / "story.json", 2)
    check(SampleConfig(storyboard=board, model=str(tiny_data.model), text_tokens=count))
    with pytest.raises(ArtifactError, match=f"segment 1: its text has {count + 1} tokens"):
        check(
            SampleConfig(
                storyboard=write_board(tmp_path / "story.json", 2, scene_start=True),
                model=str(tiny_data.model),
                text_tokens=count,
            )
        )
