"""Decide whether a text can be used as a caption, and in which language it is.

A short English text is often taken for another language with a low probability (22 % of the
captions of six words). So a text is called foreign only if its letters are not Latin, or if the
best language is not English *and* its probability reaches a threshold; between the two it is kept
and counted as unsure.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ttvcli.core.captions.boilerplate import is_boilerplate, is_file_name
from ttvcli.core.captions.language import Identify, identify, letters, non_latin_share

PROBLEMS = {
    "missing": "there is no caption",
    "too_short": "too few words to say what is seen",
    "non_english": "not in English",
    "boilerplate": "describes nothing: a file name, a placeholder, an advertisement, an excuse",
    "repeated": "the same text stands beside many videos",
}
UNDETERMINED = "und"  # as ISO 639 has it
_LEAST_LETTERS = 3


@dataclass(frozen=True)
class CaptionRules:
    """When a caption is not good enough."""

    min_words: int = 3
    min_confidence: float = 0.5  # from which on another language than English is believed
    declared_confidence: float = 0.9  # the same where the caption is said to be English
    max_non_latin: float = 0.3  # share of letters
    repeats: int = 20  # videos with the same text, 0 for any number
    repeat_share: float = 0.05  # of the videos, which they must be too


@dataclass(frozen=True)
class Verdict:
    """What was found: a key of PROBLEMS or "", and the language with its probability."""

    problem: str
    language: str
    confidence: float

    @property
    def unsure(self) -> bool:
        """Whether the text was kept although its language could not be told."""
        return not self.problem and self.language == UNDETERMINED


def check_caption(
    text: str, rules: CaptionRules, *, declared: str = "", identifier: Identify = identify
) -> Verdict:
    """Judge one caption.

    Args:
        text: the caption.
        rules: thresholds.
        declared: the language it is said to be in, if any.
        identifier: names the language of a text.
    """
    text = text.strip()
    if letters(text) < _LEAST_LETTERS:
        return Verdict("missing", "", 0.0)
    if is_file_name(text):
        return Verdict("boilerplate", UNDETERMINED, 0.0)
    language, confidence = identifier(text)
    said = declared.lower().partition("-")[0].partition("_")[0]
    least = rules.declared_confidence if said == "en" else rules.min_confidence
    if non_latin_share(text) > rules.max_non_latin:
        known = language if language != "en" else UNDETERMINED
        return Verdict("non_english", known, confidence)
    if is_boilerplate(text):
        return Verdict("boilerplate", language, confidence)
    if language != "en" and confidence >= least:
        return Verdict("non_english", language, confidence)
    if len(re.findall(r"[^\W_]+", text)) < rules.min_words:
        return Verdict("too_short", said or UNDETERMINED, confidence)
    if said and said != "en" and language != "en":
        return Verdict("non_english", said, confidence)
    return Verdict("", "en" if "en" in (said, language) else UNDETERMINED, confidence)


def repeated_texts(texts: Iterable[Iterable[str]], rules: CaptionRules) -> set[str]:
    """Return the texts that stand beside too many videos, as `normal` writes them.

    Args:
        texts: the captions of each video.
        rules: how many are too many.
    """
    videos = 0
    count: Counter[str] = Counter()
    for captions in texts:
        videos += 1
        count.update({normal(caption) for caption in captions} - {""})
    least = max(rules.repeats, rules.repeat_share * videos)
    return {text for text, times in count.items() if rules.repeats and times >= least}


def normal(text: str) -> str:
    """Return a text without what makes no difference: case, space, numbers and punctuation."""
    return " ".join(re.findall(r"[^\W\d_]+", text.casefold()))
