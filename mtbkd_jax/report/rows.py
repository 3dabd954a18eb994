"""One example of a report: what is shown of it, what the student says of it, and which teacher it follows there."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mtbkd_jax.metrics import mean_by_class
from mtbkd_jax.report.facts import Following, RunFacts
from mtbkd_jax.report.judgement import Judgement
from mtbkd_jax.report.markup import Html, printable
from mtbkd_jax.report.pictures import picture
from mtbkd_jax.report.shown import ShownExamples

_MOST_CHARACTERS = 300


class Said(NamedTuple):
    """What the student says of an example; deviance and disagreement of the draws in nats."""

    class_name: str
    probability: float
    mean_deviance: float
    epistemic: float


class Followed(NamedTuple):
    """Whom the student follows on a training example."""

    trusted_most: str
    followed_most: str
    shares: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]


class Row(NamedTuple):
    """An example; None stands for what is not known of it."""

    id: str
    kind: str
    picture: Html | None
    text: str | None
    label: str | None
    said: Said | None
    followed: Followed | None

    @property
    def outcome(self) -> str | None:
        """Whether the prediction is right, where the example has a label."""
        if self.said is None or self.label is None:
            return None
        return "right" if self.said.class_name == self.label else "wrong"


def rows_of(facts: RunFacts, judgement: Judgement, kind: str, chosen: Int[np.ndarray, " chosen"]) -> list[Row]:
    """Some examples that the student was asked about.

    Args:
      facts: of the run.
      judgement: what it says.
      kind: of example, in words.
      chosen: the rows of the judgement, in the order in which they are wanted.
    """
    examples, prediction, predicted = judgement.examples, judgement.prediction, judgement.predicted
    place = {name: row for row, name in enumerate(facts.following.ids.tolist())}
    names = facts.run.class_names
    rows = []
    for row in chosen.tolist():
        said = Said(
            printable(names[predicted[row]]),
            float(prediction.probs[row, predicted[row]]),
            float(prediction.mean_deviance[row]),
            float(prediction.epistemic[row]),
        )
        name, label = str(examples.ids[row]), int(examples.labels[row])
        trained = place.get(name) if kind != HELD_OUT else None
        rows.append(
            Row(
                name,
                kind,
                _picture(examples, row),
                _text(examples, row),
                None if label < 0 else printable(names[label]),
                said,
                None if trained is None else followed_on(facts.following, trained),
            )
        )
    return rows


HELD_OUT, TRAINING = "held out", "training"


def rows_without_inputs(facts: RunFacts, chosen: Int[np.ndarray, " chosen"]) -> list[Row]:
    """Some training examples of which nothing is at hand but whom the student follows there."""
    following = facts.following
    return [
        Row(str(following.ids[row]), TRAINING, None, None, None, None, followed_on(following, row))
        for row in chosen.tolist()
    ]


def followed_on(following: Following, row: int) -> Followed | None:
    """Whom the student follows on a training example; None where the run does not know it."""
    shares = following.responsibilities[row]
    if np.isnan(shares).any():
        return None
    low, high = following.interval[:, row].tolist()
    return Followed(
        following.components[int(following.weights[row].argmax())],
        following.components[int(shares.argmax())],
        tuple(shares.tolist()),
        tuple(zip(low, high, strict=True)),
    )


def weights_by_class(
    following: Following, examples: ShownExamples, num_classes: int
) -> Float[np.ndarray, "classes components"]:
    """Mean trust over the labelled training examples of each class, NaN where there is none."""
    label_of = dict(zip(examples.ids.tolist(), examples.labels.tolist(), strict=True))
    labels = np.array([label_of.get(name, -1) for name in following.ids.tolist()])
    return mean_by_class(following.weights, labels, num_classes)


def _picture(examples: ShownExamples, row: int) -> Html | None:
    return None if examples.images is None else picture(examples.images[row], f"image of {examples.ids[row]}")


def _text(examples: ShownExamples, row: int) -> str | None:
    if examples.texts is None:
        return None
    text = str(examples.texts[row])
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " …"
