"""Embeddings of texts that were seen, in memory or in the files that hold them already."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ttvcli.artifacts.embeddings import load_embeddings
from ttvcli.workflows.text_encoders import Encoder
from ttvcli.workflows.text_sources import Texts

_MEMORY_BYTES = 512 << 20  # of T5-XXL 270 texts


class TextStore:
    """Encodes each text once; `store[text]` is (embeddings `[L, D]`, tokens needed).

    What no longer fits into memory is read again from the file of a clip that has the text.
    """

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self._load = load
        self._encoder: Encoder | None = None
        self._memory: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._files: dict[str, tuple[Path, int, int]] = {}  # file, row, tokens needed

    def known(self, text: str) -> bool:
        """Tell whether a text needs no encoding."""
        return text in self._memory or text in self._files

    def remember(self, texts: list[str], needed: list[int], path: Path) -> None:
        """Say that a file holds the embeddings of these texts, row by row."""
        for row, (text, count) in enumerate(zip(texts, needed, strict=True)):
            self._files.setdefault(text, (path, row, count))

    def encode(self, texts: Iterable[str]) -> None:
        """Encode those of the texts that are not known."""
        missing = [text for text in texts if not self.known(text)]
        if not missing:
            return
        if self._encoder is None:
            self._encoder = self._load()
        for text, found in zip(missing, self._encoder(missing), strict=True):
            self._keep(text, found)

    def __getitem__(self, text: str) -> tuple[Any, int]:
        if text not in self._memory:
            if text in self._files:
                path, row, needed = self._files[text]
                self._keep(text, (load_embeddings(path)[0][row], needed))
            else:
                self.encode([text])
        self._memory.move_to_end(text)
        return self._memory[text]

    def _keep(self, text: str, found: tuple[Any, int]) -> None:
        self._memory[text] = found
        self._bytes += found[0].nbytes
        # What is in no file yet has to stay.
        while self._bytes > _MEMORY_BYTES and (old := self._oldest(text)) is not None:
            self._bytes -= self._memory.pop(old)[0].nbytes

    def _oldest(self, newest: str) -> str | None:
        written = (old for old in self._memory if old in self._files and old != newest)
        return next(written, None)


def groups(
    clips: Iterable[Texts], known: Callable[[str], bool], size: int
) -> Iterator[list[Texts]]:
    """Yield clips in their order, in groups with about `size` texts that are not known."""
    group: list[Texts] = []
    new: set[str] = set()
    for clip in clips:
        group.append(clip)
        new.update(text for text in clip.prompts if not known(text))
        if len(new) >= size:
            yield group
            group, new = [], set()
    if group:
        yield group
