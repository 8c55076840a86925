"""What a vision-language model is asked about a segment, and what is kept of its answer.

The default asks for what the method was trained on: one paragraph of three to five sentences, about
100 words, for every three seconds (arXiv 2504.05298).
"""

import re

STYLES = {
    "paragraph": (
        "Write one paragraph of three to five sentences, about 100 words in all. Tell, in the "
        "order in which it is seen: the place and its light; every person, animal or main object "
        "with its looks, its colours and where in the picture it is; what each of them does, how "
        "it moves and in which direction; how the camera moves, or that it stands still."
    ),
    "sentence": (
        "Write one sentence of 10 to 30 words that tells who or what is seen, what it does, where, "
        "and how the camera moves if it does."
    ),
}
_TASK = (
    "You see {frames} pictures, in the order of time, from {seconds} seconds of a video. {style} "
    "Write in English and in the present tense. Tell only what can be seen: no guesses about "
    "names, thoughts or what happens before and after. Do not mention pictures, frames or the "
    "video, and do not begin with what this is. Answer with the text alone."
)

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|$)", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(
    r"^\W*(?:here\s+is\b[^:\n]{0,80}:|(?:video\s+)?(?:caption|description|paragraph|answer|output)"
    r"\s*:)\s*",
    re.IGNORECASE,
)
_SUBJECT = (
    r"(?:video|clip|scene|footage|image|picture|frame|segment|sequence|film|shot)s?"
    r"(?:\s+(?:clip|segment|sequence|footage|frames?))?"
)
_OPENING = re.compile(
    rf"^(?:(?:in|throughout)\s+(?:this|the|these)\s+(?:short\s+)?{_SUBJECT}\s*,\s*(?:we\s+see\s+)?"
    rf"|(?:this|the|these)\s+(?:short\s+|3[-\s]second\s+|provided\s+|given\s+)?{_SUBJECT}\s+"
    r"(?:shows?|depicts?|features?|captures?|displays?|presents?|portrays?|begins?\s+with|"
    r"opens?\s+with|starts?\s+with)\s+|we\s+see\s+)",
    re.IGNORECASE,
)


def instruction(style: str, frames: int, seconds: float, own: str = "") -> str:
    """Return the text that goes with the pictures.

    Args:
        style: a key of STYLES.
        frames: how many pictures.
        seconds: how long the segment is.
        own: an instruction to use instead; `{frames}` and `{seconds}` in it are filled in.
    """
    if not own and style not in STYLES:
        raise ValueError(f"style {style!r} is not one of {', '.join(STYLES)}")
    text = own or _TASK.replace("{style}", STYLES[style])
    return text.replace("{frames}", str(frames)).replace("{seconds}", f"{seconds:.3g}")


def clean_answer(answer: str) -> str:
    """Return an answer as one line: without thoughts, labels, quotes, marks and stock openings."""
    text = _THOUGHTS.sub(" ", answer)
    text = re.sub(r"```\w*|\*\*|__|^#+\s*", " ", text, flags=re.MULTILINE)
    text = " ".join(text.split())
    text = _LABEL.sub("", text)
    if text[:1] in ('"', "“") and len(re.findall('["“”]', text)) == 2:
        text = " ".join(re.sub('["“”]', " ", text).split())
    shorter = _OPENING.sub("", text)
    return shorter[:1].upper() + shorter[1:] if shorter != text else text
