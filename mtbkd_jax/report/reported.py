"""A run as it is reported: what its files and its student say, and what every part of the page is made with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mtbkd_jax.report.facts import RunFacts
from mtbkd_jax.report.judgement import Judgement
from mtbkd_jax.report.markup import Html, element, printable
from mtbkd_jax.report.pictures import plot
from mtbkd_jax.students import num_parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_NAME = 40

PARTS = {
    "summary": "Summary",
    "methods": "Methods",
    "calibration": "Calibration",
    "uncertainty": "Uncertainty by class",
    "following": "Whom the student follows",
    "extremes": "Most and least certain examples",
    "examples": "Example by example",
    "convergence": "Have the chains mixed?",
    "settings": "Settings",
    "repetition": "Configuration, and how to repeat it",
}
"""The headings of a report on a run, by what their ids end with."""


@dataclass(frozen=True)
class Reported:
    """A run with what its student says of the examples at hand.

    Attributes:
      facts: of the run.
      held_out: what it says of examples that it was not trained on, if there are any.
      training: of those that it was trained on, if they are at hand.
      key: begins the ids of the page's parts that are about this run.
      level: of the headings of its parts.
    """

    facts: RunFacts
    held_out: Judgement | None
    training: Judgement | None
    key: str
    level: int

    @property
    def metrics(self) -> dict[str, float | None]:
        """The figures of merit of the student, on held-out examples where there are any, and its size."""
        of = self.facts.metrics if self.held_out is None else self.held_out.metrics
        return {**of, "parameters": float(num_parameters(self.facts.run.student))}

    @property
    def scored(self) -> Judgement | None:
        """What can be drawn against labels that the run does not know."""
        return self.held_out if self.held_out is not None and self.held_out.metrics else None

    @property
    def at_hand(self) -> Judgement | None:
        """Of held-out examples if there are any, else of those of the training."""
        return self.training if self.held_out is None else self.held_out

    def heading(self, part: str) -> Html:
        """The heading of a part."""
        return element(f"h{self.level}", PARTS[part], id=f"{self.key}-{part}")


def short(name: str) -> str:
    """A name as a figure has room for it."""
    name = printable(name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def section(heading: Html, *content: str) -> Html:
    """A part of the page."""
    return element("section", heading, *content)


def drawn(figure: "Figure", key: str, description: str) -> Html:
    """A figure with its alternative text; its ids begin with the key."""
    return element("figure", plot(figure, key, description))


def needs_data(text: str) -> Html:
    """What stands for a part that labelled examples are missing for."""
    return element(
        "p",
        f"{text} Give a file of labelled examples that the run has not seen: ",
        element("code", "--data FILE.npz"),
        ".",
    )


def mean_share(of: Reported, component: str) -> float:
    """How far the student of a run follows somebody over all training examples; NaN where it does not know them."""
    following = of.facts.following
    if component not in following.components:
        return float("nan")
    return means_of_known(following.responsibilities)[following.components.index(component)]


def means_of_known(values: Float[np.ndarray, "examples components"]) -> list[float]:
    """Mean over the examples of which it is known; NaN where there is none."""
    known = values[~np.isnan(values).any(axis=1)]
    return known.mean(axis=0).tolist() if len(known) else [float("nan")] * values.shape[1]
