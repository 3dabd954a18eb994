"""Options of adapters that are given on a command line, as dataclasses."""

from dataclasses import dataclass

from mtbkd_jax.adapters.label_words import Normalisation
from mtbkd_jax.adapters.prompts import Prompt, make_prompt, read_words


@dataclass(frozen=True)
class PromptOptions:
    """How a language model is asked, and which words of its answer stand for which class."""

    template: str = ""
    """A text in which {input} stands for the input; it ends where the answer begins."""
    words: tuple[str, ...] = ()
    """``CLASS=WORD``, once or more for each class. A space before the word belongs to it."""
    normalisation: Normalisation = "none"
    """What the log probability of a word is divided by: nothing, its number of tokens, its number of bytes."""

    def prompt(self) -> Prompt:
        """The prompt that the options stand for."""
        return make_prompt(self.template, read_words(self.words), where="--prompt")


@dataclass(frozen=True)
class AnswerOptions:
    """How a closed model behind an endpoint answers, where it gives no log probabilities of label words."""

    num_samples: int = 16
    """Answers to each question."""
    pseudo_count: float = 0.5
    """Answers that each class is taken to have had beforehand: the parameter of a symmetric Dirichlet prior."""
    max_tokens: int = 8
    """Of an answer."""
