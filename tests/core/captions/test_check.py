"""Captions that are no use are found, and good ones are left alone."""

import pytest

from ttvcli.core.captions.check import (
    PROBLEMS,
    CaptionRules,
    check_caption,
    repeated_texts,
)
from ttvcli.core.world.grammar import heldout_prompts

RULES = CaptionRules()


def never_asked(text: str) -> tuple[str, float]:
    raise AssertionError(f"the language of {text!r} does not matter")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "missing"),
        ("  \n", "missing"),
        ("12345 - 67", "missing"),
        ("ab", "missing"),
        ("a dog", "too_short"),
        ("Sunset", "too_short"),
        ("IMG_2031.MOV", "boilerplate"),
        ("VID_20191220_170832", "boilerplate"),
        ("a8f7d9e0c1b2", "boilerplate"),
        ("untitled project", "boilerplate"),
        ("No caption available.", "boilerplate"),
        ("video 3", "boilerplate"),
        ("Free stock video by John on Pexels", "boilerplate"),
        ("#fun #dog https://example.org/x", "boilerplate"),
        ("I'm sorry, but I can't describe this video.", "boilerplate"),
        ("As an AI language model I only read text", "boilerplate"),
        ("ein Hund läuft durch den tiefen Schnee und bellt", "non_english"),
        ("un perro corre por la nieve mientras ladra", "non_english"),
        ("小狗在雪地里奔跑", "non_english"),
        ("собака бежит", "non_english"),
    ],
)
def test_useless_captions_are_found(text: str, problem: str) -> None:
    assert check_caption(text, RULES).problem == problem
    assert problem in PROBLEMS


@pytest.mark.parametrize(
    "text",
    [
        "a dog running in snow",
        "dog running snow",
        "Stock footage of a brown dog running along a sandy beach",
        "No text is visible while a man walks past the shop.",
        "A woman in a red coat opens video games on her phone, static shot",
        "nothing on a black background",
    ],
)
def test_plain_english_is_kept(text: str) -> None:
    assert check_caption(text, RULES).problem == ""


def test_a_low_probability_of_another_language_is_no_reason() -> None:
    text = "a dog runs far"
    assert check_caption(text, RULES, identifier=lambda _: ("no", 0.49)).unsure
    found = check_caption(text, RULES, identifier=lambda _: ("no", 0.5))
    assert (found.problem, found.language) == ("non_english", "no")


def test_who_says_that_a_caption_is_english_is_believed_more() -> None:
    text = "a blue hoop gets smaller"
    for probability, problem in ((0.6, ""), (0.95, "non_english")):
        found = check_caption(
            text, RULES, declared="en-GB", identifier=lambda _, p=probability: ("af", p)
        )
        assert found.problem == problem
    assert check_caption(text, RULES, declared="de", identifier=lambda _: ("af", 0.1)).problem


def test_letters_decide_before_the_identifier() -> None:
    mixed = "a сат wаlks собака бежит по снегу"
    assert check_caption(mixed, RULES, identifier=lambda _: ("en", 0.99)).problem == "non_english"


def test_what_is_missing_needs_no_identifier() -> None:
    assert check_caption("?!", RULES, identifier=never_asked).problem == "missing"
    assert check_caption("IMG_1234", RULES, identifier=never_asked).problem == "boilerplate"


def test_captions_of_the_tiny_world_pass() -> None:
    texts = [text for text, _ in heldout_prompts(100)]
    bad = [text for text in texts if check_caption(text, RULES, declared="en").problem]
    assert bad == []


def test_one_text_beside_many_videos_is_found_whatever_its_number() -> None:
    texts = [[f"Holiday with my family, part {i}"] for i in range(25)]
    texts += [[f"a {word} dog runs", "a cat"] for word in ("red", "brown", "small")] * 5
    assert repeated_texts(texts, RULES) == {"holiday with my family part"}
    assert repeated_texts(texts, CaptionRules(repeats=0)) == set()
    many = [
        *texts,
        *(
            [f"no {a} like {b}"]
            for a in "abcdefghijklmnopqrstuvwxyz"
            for b in "xyzuvwabcdefghijklmn"
        ),
    ]
    assert repeated_texts(many, RULES) == set()  # 25 of 560 videos are below the share
