"""Which language a text is in, offline: by its letters, and by py3langid."""

import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

# (ISO 639 code of the best language, its probability).
Identify = Callable[[str], tuple[str, float]]


def letters(text: str) -> int:
    """Count the letters of any script."""
    return sum(map(str.isalpha, text))


def non_latin_share(text: str) -> float:
    """Return the share of letters that are not Latin ones, 0 if there is no letter."""
    found = [letter for letter in text if letter.isalpha()]
    if not found:
        return 0.0
    return sum(not unicodedata.name(c, "").startswith("LATIN") for c in found) / len(found)


def identify(text: str) -> tuple[str, float]:
    """Return the most probable of about a hundred languages and its probability."""
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


@cache
def _identifier() -> Any:
    # Imported late: unpacking its model takes a second.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
