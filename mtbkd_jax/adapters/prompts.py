"""Prompts: how a language model is asked about a text, and which words of its answer stand for which class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtbkd_jax.checks import check_class_names, some
from mtbkd_jax.errors import InputError

_BLANK = "{input}"


@dataclass(frozen=True)
class Prompt:
    """A template, and words for each class (a *verbaliser*); made by ``make_prompt``, which checks it.

    Attributes:
      template: a text in which ``{input}`` stands for the input.
      words: by the name of the class, those that stand for it.
    """

    template: str
    words: Mapping[str, tuple[str, ...]]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the outputs."""
        return tuple(self.words)

    def text(self, of: str) -> str:
        """The text that asks about an input; braces in the input mean nothing."""
        return self.template.replace(_BLANK, of)


def make_prompt(template: str, words: Mapping[str, str | Sequence[str]], *, where: str = "prompt") -> Prompt:
    r"""Check a template and words, and make a prompt of them.

    Args:
      template: a text in which ``{input}`` stands for the input.
      words: by the name of the class, a word or several.
      where: what error messages call it.

    Raises:
      InputError: if the template has no place for the input, a class has no word, or a word stands for two classes.

    >>> prompt = make_prompt("Review: {input}\nIt is", {"positive": [" good", " great"], "negative": " bad"})
    >>> prompt.text("Fine.")
    'Review: Fine.\nIt is'
    >>> prompt.words
    {'positive': (' good', ' great'), 'negative': (' bad',)}
    """
    if _BLANK not in template:
        raise InputError(where, "template", repr(template), f"a text with {_BLANK} in it", "Say where the input goes.")
    check_class_names(list(words), where, "classes")
    by_class = {name: (of,) if isinstance(of, str) else tuple(of) for name, of in words.items()}
    for name, of in by_class.items():
        if not of or not all(word.strip() for word in of):
            raise InputError(where, f"words of {name}", f"{of}", "a word or several", "Give a word for each class.")
    every = [word.strip() for of in by_class.values() for word in of]
    if twice := sorted({word for word in every if every.count(word) > 1}):
        raise InputError(where, "words", f"more than once: {some(twice)}", "each for one class", "Choose other words.")
    return Prompt(template, by_class)


def read_words(specs: Sequence[str]) -> dict[str, list[str]]:
    """Read words as a command line gives them: ``CLASS=WORD``, once or more for each class.

    >>> read_words(["positive= good", "negative= bad", "positive= great"])
    {'positive': [' good', ' great'], 'negative': [' bad']}

    Raises:
      InputError: if one has no equals sign.
    """
    words: dict[str, list[str]] = {}
    for spec in specs:
        name, equals, word = spec.partition("=")
        if not equals:
            raise InputError(
                "--prompt.words", repr(spec), "no equals sign", "CLASS=WORD", "Write which class it is for."
            )
        words.setdefault(name, []).append(word)
    return words
