"""Texts that stand where a caption should be and describe nothing.

File names, placeholders, the phrases of stock-video sites and video platforms, and a language
model that says why it does not answer.
"""

import re

LEAST_WORDS_BESIDE = 4  # a phrase of a stock-video site is no harm beside a real description

_NAMES = re.compile(
    r"""^(?:
        [\w\-. ()\[\]]+\.(?:mp4|m4v|mov|webm|mkv|avi|gif|mpe?g|wmv|flv|ogv|3gp|ts)
        | (?:img|vid|dsc[nf]?|mvi|mov|gopr|gh\d\d|pxl|dji|clip|video|movie|scene|shot|cam|wa|
             screen[ ]?recording|screencast|whatsapp[ ]video)[-_ ]?[\d\-_: .apm]*\d[\d\-_: .apm]*
        | [0-9a-f]{8,} | [0-9a-f]{8}-[0-9a-f-]{27}
        | \S*[\d_]\S*
    )$""",
    re.IGNORECASE | re.VERBOSE,
)
_PLACEHOLDERS = re.compile(
    r"""^\W*(?:
        untitled(?:\W.*)?
        | no\W+(?:caption|description|title|text|prompt)s?
          (?:\W+(?:is|was|are))?(?:\W+(?:available|provided|given|found|yet))?
        | n/?a | none | null | nan | undefined | unknown | todo | tbd | tba | empty | placeholder
        | lorem\W+ipsum.* | (?:a\W+|an\W+|the\W+|my\W+|new\W+|test\W+|sample\W+|example\W+|demo\W+)*
          (?:video|clip|movie|footage|recording|caption|description|prompt|title|project|file)s?
          (?:\W+(?:here|clip|file|test|\d+))*
        | (?:insert|enter|add|write)\W+.{0,30}(?:here|caption|description)
    )\W*$""",
    re.IGNORECASE | re.VERBOSE,
)
_REFUSALS = re.compile(
    r"""(?:
        ^\W*(?:i\s+am|i['’]m)\s+(?:really\s+|very\s+)?(?:sorry|unable|not\s+able)
        | ^\W*sorry\b | ^\W*i\s+apologi[sz]e
        | \bi\s+(?:can\s*not|can['’]t|could\s+not|do\s+not|don['’]t)\s+
          (?:see|view|watch|access|describe|assist|help|provide|identify|have\s+access|process)
        | \bas\s+an?\s+(?:ai|artificial|language\s+model)\b
        | \bno\s+(?:video|image|frame|picture)s?\s+(?:was|were|has\s+been|have\s+been|is|are)?\s*
          (?:provided|attached|uploaded|visible\s+to\s+me)
        | \bplease\s+(?:provide|upload|attach|share)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_PHRASES = re.compile(
    r"""(?:
        https?://\S+ | www\.\S+ | \S+@\S+\.\w+ | [\#@]\w+
        | \b(?:video|clip|footage|photo|film)\s+(?:by|from|courtesy\s+of)\s+.*$
        | \b(?:royalty[-\s]?free|free|hd|uhd|4k|8k|1080p|720p|60fps|stock)\s+
          (?:stock\s+)?(?:videos?|footages?|clips?|downloads?|motion\s+graphics)\b
        | \b(?:shutterstock|i?stock(?:photo)?|getty\s?images|adobe\s+stock|pexels|pixabay|videvo|
            pond5|storyblocks|dreamstime|depositphotos)(?:\.com)?\b
        | \b(?:like\s+(?:and|&)\s+)?subscribe\b(?:\s+(?:to|for)\b.*)? | \bclick\s+(?:the|here)\b.*$
        | \blinks?\s+in\s+(?:the\s+)?(?:bio|description)\b
        | \bfollow\s+(?:me|us)\b.*$ | \ball\s+rights\s+reserved\b
        | (?:©|\(c\)|\bcopyright\b)[\s\d\W]*\w*
        | \bofficial\s+(?:music\s+|lyric\s+)?(?:video|trailer|teaser)\b
        | \b(?:watch|download)\s+(?:now|free|here|online|the\s+full)\b.*$
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def is_file_name(text: str) -> bool:
    """Tell whether a text is the name or the number of a file."""
    return _NAMES.match(text.strip()) is not None


def is_refusal(text: str) -> bool:
    """Tell whether a text is a language model's excuse."""
    return _REFUSALS.search(text) is not None


def is_boilerplate(text: str) -> bool:
    """Tell whether a text describes nothing, besides phrases that fit any video."""
    if _PLACEHOLDERS.match(text) or is_refusal(text):
        return True
    rest, found = _PHRASES.subn(" ", text)
    return bool(found) and len(re.findall(r"[^\W\d_]+", rest)) < LEAST_WORDS_BESIDE
