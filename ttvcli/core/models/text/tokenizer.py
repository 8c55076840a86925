"""SentencePiece tokenizer with the T5 layout: padding 0, end of text 1, unknown 2, no start token.

Depends on `sentencepiece` alone. Two scene tokens mark where a scene begins and ends inside a
storyboard. A model trained here holds them as pieces of its own; the public T5 model does not, and
they take the two ids behind its 100 sentinels, whose embedding rows T5 never trained.
"""

import io
import re
import string
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

PAD, END, UNKNOWN = 0, 1, 2
START_SCENE = "<start_scene>"
END_SCENE = "<end_scene>"
SCENE_TOKENS = (START_SCENE, END_SCENE)
SENTINELS = 100  # `<extra_id_0..99>`: ids reserved behind the pieces of every T5 model


class SentencePieceTokenizer:
    """Text to token ids with the model file `spiece.model` at `path`."""

    def __init__(self, path: str | Path) -> None:
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path} is not a readable SentencePiece model: {error}") from error
        layout = (self._model.pad_id(), self._model.eos_id(), self._model.unk_id())
        if layout != (PAD, END, UNKNOWN):
            raise ValueError(
                f"{path} has (pad, eos, unk) ids {layout}, a T5 tokenizer has {(PAD, END, UNKNOWN)}"
            )
        pieces = self._model.get_piece_size()
        self._scene = {
            token: pieces + SENTINELS + index
            if self._model.piece_to_id(token) == UNKNOWN
            else self._model.piece_to_id(token)
            for index, token in enumerate(SCENE_TOKENS)
        }
        self.has_scene_pieces = UNKNOWN not in map(self._model.piece_to_id, SCENE_TOKENS)
        self._split = re.compile("(" + "|".join(map(re.escape, SCENE_TOKENS)) + ")")
        self.vocab_size = max(pieces - 1, *self._scene.values()) + 1

    def encode(self, text: str, max_tokens: int) -> list[int]:
        """Return exactly `max_tokens` ids: the text, END, then PAD.

        Text over the budget is cut so that END stays the last token; `count` tells beforehand.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}, need at least 1 for the end token")
        ids = [*self._pieces(text)[: max_tokens - 1], END]
        return ids + [PAD] * (max_tokens - len(ids))

    def count(self, text: str) -> int:
        """Return how many tokens the text needs, END included."""
        return len(self._pieces(text)) + 1

    def unknown(self, text: str) -> int:
        """Return how many tokens of the text the model does not know at all."""
        return self._pieces(text).count(UNKNOWN)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids` up to END; scene tokens come back as their literals."""
        names = {number: token for token, number in self._scene.items()}
        parts: list[str] = []
        run: list[int] = []
        for number in ids:
            if number in (END, PAD):
                break
            if number in names:
                parts += [self._model.decode(run), names[number]]
                run = []
            else:
                run.append(number)
        parts.append(self._model.decode(run))
        return " ".join(part for part in parts if part)

    def _pieces(self, text: str) -> list[int]:
        # Cutting at the scene tokens ourselves makes spaces around them cost no token, whether
        # or not the model knows them.
        ids: list[int] = []
        for part in self._split.split(text):
            ids += [self._scene[part]] if part in self._scene else self._model.encode(part)
        return ids


def train_tokenizer(sentences: Iterable[str], path: str | Path, vocab_size: int) -> None:
    """Train a lower-casing unigram model on `sentences` and write it to `path`.

    The same sentences in the same order give the same bytes. Every printable ASCII character is a
    piece, so an English word never seen still tokenises; other scripts become UNKNOWN.
    `vocab_size` is an upper bound: a small corpus gives fewer pieces.
    """
    characters = "".join(sorted(set(string.printable) - set(string.whitespace)))
    floor = len(characters) + len(SCENE_TOKENS) + 4
    if vocab_size < floor:
        raise ValueError(f"vocab_size is {vocab_size}, the fixed pieces alone need {floor}")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_with_word_ends(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        pad_id=PAD,
        eos_id=END,
        unk_id=UNKNOWN,
        bos_id=-1,
        user_defined_symbols=list(SCENE_TOKENS),
        normalization_rule_name="nmt_nfkc_cf",
        character_coverage=1.0,
        required_chars=characters.lower(),
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    Path(path).write_bytes(model.getvalue())


def _with_word_ends(sentences: Iterable[str]) -> Iterator[str]:
    """Yield the sentences, then every word once with three different ends.

    The trainer's candidates are the substrings that different characters follow. In a small
    grammar most words are always followed by a space, so without this they could not become
    pieces and would be cut to fragments, however frequent.
    """
    words: set[str] = set()
    for sentence in sentences:
        words.update(re.findall(r"[^\W_]+", sentence.casefold()))
        yield sentence
    for word in sorted(words):
        yield f"{word} {word}, {word}."
