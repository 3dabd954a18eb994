"""Tests of mtbkd_jax.adapters.prompts."""

import pytest

from mtbkd_jax.adapters.prompts import make_prompt, read_words
from mtbkd_jax.errors import InputError


def test_braces_of_an_input_mean_nothing():
    prompt = make_prompt("{input}? {0} {x}", {"a": "a", "b": "b"})
    assert prompt.text("{input} {x.__class__} {") == "{input} {x.__class__} {? {0} {x}"


@pytest.mark.parametrize(
    ("template", "words", "message"),
    [
        ("no place", {"a": "a", "b": "b"}, "template: found 'no place'"),
        ("{input}", {"a": "a"}, "two classes or more"),
        ("{input}", {"a": "a", "b": " "}, "words of b"),
        ("{input}", {"a": "a", "b": []}, "words of b"),
        ("{input}", {"a": ["x", "y"], "b": " x"}, "more than once: 'x'"),
    ],
)
def test_prompts_that_are_not_what_they_must_be_are_refused(template, words, message):
    with pytest.raises(InputError, match=message):
        make_prompt(template, words)


def test_a_word_without_its_class_is_refused():
    with pytest.raises(InputError, match=r"--prompt\.words: ' good': found no equals sign"):
        read_words([" good"])
