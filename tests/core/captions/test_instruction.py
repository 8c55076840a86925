"""What is asked, and what is left of the answers."""

import pytest

from ttvcli.core.captions.instruction import STYLES, clean_answer, instruction


@pytest.mark.parametrize("style", STYLES)
def test_the_instruction_names_frames_and_seconds(style: str) -> None:
    text = instruction(style, 8, 3.0)
    assert "8 pictures" in text
    assert "3 seconds" in text
    assert "{" not in text


def test_the_default_asks_for_the_paragraph_of_the_method() -> None:
    assert "one paragraph of three to five sentences" in instruction("paragraph", 8, 3.0)


def test_an_own_instruction_stands_for_all_and_may_have_braces() -> None:
    assert instruction("", 8, 2.5, "{frames} of {seconds} s as {json}") == "8 of 2.5 s as {json}"


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match="haiku"):
        instruction("haiku", 8, 3.0)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("A dog runs.\n\nIt barks.", "A dog runs. It barks."),
        ("The video shows a man who walks.", "A man who walks."),
        ("This video clip features two cats.", "Two cats."),
        ("In this scene, we see a cat.", "A cat."),
        ("**Caption:** A red car turns.", "A red car turns."),
        ('"A red car turns."', "A red car turns."),
        ('Here is the paragraph:\n"The clip depicts rain."', "Rain."),
        ("<think>what is it?</think>\nA kite rises.", "A kite rises."),
        ("```\nA kite rises.\n```", "A kite rises."),
        ('A sign that says "open" hangs.', 'A sign that says "open" hangs.'),
        ("The scene is dark.", "The scene is dark."),
    ],
)
def test_answers_are_cleaned(answer: str, kept: str) -> None:
    assert clean_answer(answer) == kept
