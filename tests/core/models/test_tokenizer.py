"""The SentencePiece tokenizer and its training."""

from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from ttvcli.core.models.text.tokenizer import (
    END_SCENE,
    START_SCENE,
    UNKNOWN,
    SentencePieceTokenizer,
    train_tokenizer,
)

COLOURS, SHAPES = ["red", "green", "blue"], ["circle", "square", "star"]
SENTENCES = [
    f"A {colour} {shape} moves {way} over a {ground} background."
    for colour in COLOURS
    for shape in SHAPES
    for way in ("left", "right", "up")
    for ground in ("dark", "plain")
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "spiece.model"
    train_tokenizer(SENTENCES, path, 256)
    return path


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(path)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    """A tokenizer with the T5 layout that knows no scene tokens, like the public one."""
    prefix = tmp_path_factory.mktemp("foreign") / "spiece"
    train_plain(prefix, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    return SentencePieceTokenizer(prefix.with_suffix(".model"))


def train_plain(prefix: Path, **ids: Any) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(prefix),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **ids,
    )


def test_ids_end_with_the_end_token_and_are_padded_to_the_budget(
    tokenizer: SentencePieceTokenizer,
) -> None:
    ids = tokenizer.encode("a red circle", 8)
    assert len(ids) == 8
    assert ids[3:] == [1, 0, 0, 0, 0]
    assert min(ids[:3]) > 2


def test_the_empty_prompt_is_an_end_token_and_padding(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.encode("", 5) == [1, 0, 0, 0, 0]
    assert tokenizer.encode("   ", 5) == [1, 0, 0, 0, 0]
    assert tokenizer.count("") == 1


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_long_text_is_cut_so_that_the_end_token_stays_last(
    tokenizer: SentencePieceTokenizer, budget: int
) -> None:
    text = "a red circle moves left over a dark background"
    whole = tokenizer.encode(text, tokenizer.count(text))
    assert 0 not in whole
    assert tokenizer.encode(text, budget) == [*whole[: budget - 1], 1]
    assert tokenizer.count(text) > budget


def test_a_budget_without_room_for_the_end_token_is_refused(
    tokenizer: SentencePieceTokenizer,
) -> None:
    with pytest.raises(ValueError, match="max_tokens is 0"):
        tokenizer.encode("a red circle", 0)


def test_the_words_of_the_training_sentences_are_one_token_each(
    tokenizer: SentencePieceTokenizer,
) -> None:
    for word in [*COLOURS, *SHAPES, "moves", "over", "dark", "background"]:
        assert tokenizer.count(word) == 2, word


def test_upper_case_gives_the_same_ids(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.encode("A Red CIRCLE", 8) == tokenizer.encode("a red circle", 8)


def test_unseen_english_words_still_tokenise(tokenizer: SentencePieceTokenizer) -> None:
    text = "Two zebras (and 1 fox) jump; why? 100% quick!"
    assert tokenizer.unknown(text) == 0
    assert tokenizer.decode(tokenizer.encode(text, 80)) == text.lower()


def test_other_scripts_are_reported_as_unknown(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.unknown("a red 犬") == 1
    assert UNKNOWN in tokenizer.encode("a red 犬", 8)


@pytest.mark.parametrize("which", ["tokenizer", "foreign"])
def test_scene_tokens_are_one_id_each_and_spaces_around_them_cost_nothing(
    which: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: SentencePieceTokenizer = request.getfixturevalue(which)
    start, stop = (
        tokenizer.encode(f"{START_SCENE}{END_SCENE}", 2)[0],
        tokenizer.encode(END_SCENE, 2)[0],
    )
    count = tokenizer.count("a red circle")
    plain = tokenizer.encode("a red circle", count)[:-1]
    for text in (
        f"{START_SCENE} a red circle {END_SCENE}",
        f"{START_SCENE}a red circle{END_SCENE}",
    ):
        assert tokenizer.count(text) == count + 2
        ids = tokenizer.encode(text, count + 2)
        assert ids == [start, *plain, stop, 1]
        assert tokenizer.decode(ids) == f"{START_SCENE} a red circle {END_SCENE}"


def test_scene_tokens_of_a_public_model_come_behind_its_hundred_sentinels(
    foreign: SentencePieceTokenizer,
) -> None:
    pieces = foreign._model.get_piece_size()
    assert foreign.encode(f"{START_SCENE}{END_SCENE}", 3) == [pieces + 100, pieces + 101, 1]
    assert foreign.vocab_size == pieces + 102


def test_scene_tokens_of_our_own_models_are_pieces(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.encode(f"{START_SCENE}{END_SCENE}", 3) == [3, 4, 1]
    assert tokenizer.vocab_size == tokenizer._model.get_piece_size()


def test_training_twice_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.model"
    train_tokenizer(iter(SENTENCES), again, 256)
    assert again.read_bytes() == path.read_bytes()
    assert str(tmp_path).encode() not in again.read_bytes()


def test_training_writes_nothing_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train_tokenizer(SENTENCES, tmp_path / "spiece.model", 256)
    assert capfd.readouterr() == ("", "")


def test_a_vocabulary_too_small_for_its_fixed_pieces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocab_size is 50"):
        train_tokenizer(SENTENCES, tmp_path / "spiece.model", 50)


def test_a_model_with_another_layout_is_refused(tmp_path: Path) -> None:
    train_plain(tmp_path / "llama", unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
    with pytest.raises(ValueError, match="a T5 tokenizer has"):
        SentencePieceTokenizer(tmp_path / "llama.model")


def test_a_missing_or_corrupt_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a readable SentencePiece model"):
        SentencePieceTokenizer(tmp_path / "absent.model")
    (tmp_path / "torn.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="not a readable SentencePiece model"):
        SentencePieceTokenizer(tmp_path / "torn.model")
