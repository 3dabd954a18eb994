"""What teachers left unsaid: NaN among their logits, and what stands for it in arithmetic.

A teacher that was not asked about an example has NaN for all of its classes there, where ``missing_teachers`` says that
this is meant; otherwise it is refused. A teacher that gave its most probable classes alone has their log probabilities,
and NaN for the others, where ``tail`` says what becomes of these (``tails``); otherwise it is refused as well. Nothing
that is computed sees a NaN: a teacher that was not asked has the flat distribution, and ``is_asked`` takes its weight
away; classes of which nothing was said share evenly what the others leave of one, and ``known`` says which they are.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from mtbkd_jax.checks import SUM_TOLERANCE, check_num_classes, check_numbers, found_not_finite
from mtbkd_jax.errors import InputError
from mtbkd_jax.rows import Rows, blocks
from mtbkd_jax.tails import RULES, KnownClasses, Tail

MissingTeachers = Literal["refuse", "mask"]
"""What becomes of a teacher that was not asked about an example: an error, or it has no weight there."""


class Heard(NamedTuple):
    """What teachers said.

    Attributes:
      logits: finite; zeros, the flat distribution, where a teacher was not asked.
      is_asked: ``[examples, teachers]``; None where every teacher was asked about every example.
      known: of which classes the probability is known, with the rule for the others; None without a rule.
    """

    logits: Float[np.ndarray, "examples teachers classes"]
    is_asked: Bool[np.ndarray, "examples teachers"] | None
    known: KnownClasses | None


def heard(logits: Float[np.ndarray, "examples teachers classes"], tail: Tail | None = None) -> Heard:
    """Put something finite where nothing was said, and say where; ``check_heard`` comes before.

    All classes of a teacher that was not asked count as known: it has no weight, and no density is at risk.

    >>> heard(np.array([[[0.0, 2.0], [np.nan, np.nan]]], np.float32)).is_asked.tolist()
    [[True, False]]
    """
    is_said = ~np.isnan(logits)
    is_asked = is_said.any(axis=-1)
    filled = logits if is_asked.all() else np.where(is_asked[..., None], logits, np.float32(0))
    return Heard(
        filled if tail is None else _with_tails(filled),
        None if is_asked.all() else is_asked,
        None if tail is None else RULES[tail](is_said | ~is_asked[..., None]),
    )


def _with_tails(
    logits: Float[np.ndarray, "examples teachers classes"],
) -> Float[np.ndarray, "examples teachers classes"]:
    """Log probabilities of all classes: those of which nothing was said share evenly what is left of one."""
    is_said = ~np.isnan(logits)
    said = np.exp(logits, where=is_said & ~is_said.all(axis=-1, keepdims=True), out=np.zeros(logits.shape))
    left = np.maximum(1 - said.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    num_others = np.maximum((~is_said).sum(axis=-1, keepdims=True), 1)
    return np.where(is_said, logits, np.log(left / num_others)).astype(np.float32)


def said_at(
    places: Int[np.ndarray, " examples"],
    read: Callable[[Int[np.ndarray, " known"]], Float[np.ndarray, "known classes"]],
    num_classes: int,
) -> Float[np.ndarray, "examples classes"]:
    """What is read at some places, and NaN at those that are negative."""
    is_known = places >= 0
    if is_known.all():
        return read(places)
    values = np.full((len(places), num_classes), np.nan, np.float32)
    if is_known.any():
        values[is_known] = read(places[is_known])
    return values


def check_heard(
    logits: ArrayLike, missing: MissingTeachers, tail: Tail | None, where: str, field: str = "teacher_logits"
) -> Float[np.ndarray, "examples teachers classes"]:
    """Return logits as float32, finite but for NaN where nothing was said, and that is allowed.

    Args:
      logits: ``[examples, teachers, classes]``, all that is learned from.
      missing: what rows of NaN mean.
      tail: what becomes of classes that are NaN; None where there are none.
      where: for the message.
      field: for the message.

    Raises:
      InputError: if a number is not finite that has to be, log probabilities beside NaN are none, or a teacher was
        asked about no example at all.
    """
    array = check_numbers(logits, where, field)
    was_asked = _check_block(array, missing, tail, where, field).any(axis=0)
    if not was_asked.all():
        found = f"NaN in all {len(array)} rows of teacher {np.flatnonzero(~was_asked)[0]}"
        action = "Leave this teacher out, or ask it about some of the examples."
        raise InputError(where, field, found, "teachers that were asked about one example or more", action)
    return array


def check_heard_rows(
    logits: Rows, missing: MissingTeachers, tail: Tail | None, where: str, field: str = "teacher_logits"
) -> None:
    """That all rows are what ``check_heard`` asks for, in bounded memory; a row is named within its block.

    Raises:
      InputError: if a number is not finite that has to be, or log probabilities beside NaN are none.
    """
    for start, block in blocks(logits):
        of_block = f"{field} from row {start}"
        _check_block(check_numbers(block, where, of_block), missing, tail, where, of_block)


def _check_block(
    logits: Float[np.ndarray, "examples teachers classes"],
    missing: MissingTeachers,
    tail: Tail | None,
    where: str,
    field: str,
) -> Bool[np.ndarray, "examples teachers"]:
    """Which teachers were asked about which of these examples."""
    is_missing = np.isnan(logits).all(axis=-1)
    if missing == "refuse" and is_missing.any():
        row, teacher = np.argwhere(is_missing)[0]
        num_rows = is_missing.any(axis=1).sum()
        found = f"NaN for all classes of teacher {teacher} in row {row}, and {num_rows} of {len(logits)} such rows"
        action = "If the teacher was not asked about these examples, say so by `missing_teachers='mask'`."
        raise InputError(where, field, found, "finite numbers", action)
    is_unsaid = np.isnan(logits)
    if tail is not None:
        for teacher in range(logits.shape[1]):
            rows = np.flatnonzero(is_unsaid[:, teacher].any(axis=-1) & ~is_missing[:, teacher])
            check_top_log_probs(logits[rows, teacher], where, f"{field} of teacher {teacher}", rows)
    is_allowed = is_missing[..., None] if tail is None else is_unsaid
    if not_finite := found_not_finite(np.where(is_allowed, np.float32(0), logits)):
        expected = "finite numbers" + (", or NaN for all classes of a teacher" if missing == "mask" else "")
        action = (
            "Correct or leave out these rows. If these are log probabilities of a teacher's most probable classes, say "
            "what becomes of the others: `tail`, one of drop, renormalise and bucket."
        )
        raise InputError(where, field, not_finite, expected, action)
    return ~is_missing


def check_sparse(values: ArrayLike, where: str, field: str) -> Float[np.ndarray, "examples classes"]:
    """Return log probabilities of a teacher's most probable classes as float32, beside NaN for the others.

    Raises:
      InputError: if they are not two or more classes of each example, one or more of them not NaN, or are not log
        probabilities.
    """
    array = check_numbers(values, where, field)
    if array.ndim != 2:
        action = "Give a row for each example and a column for each class."
        raise InputError(where, field, f"an array of shape {array.shape}", "two axes, [examples, classes]", action)
    check_num_classes(array.shape[1], where, field)
    if (empty := np.flatnonzero(np.isnan(array).all(axis=1))).size:
        action = "Leave out the examples that the teacher was not asked about."
        raise InputError(where, field, f"NaN for all classes in row {empty[0]}", "one class or more", action)
    check_top_log_probs(array, where, field, np.arange(len(array)))
    return array


def check_top_log_probs(
    log_probs: Float[np.ndarray, "rows classes"], where: str, field: str, rows: Int[np.ndarray, " rows"]
) -> None:
    """Check log probabilities of some classes, beside NaN for the others.

    Args:
      log_probs: one class or more in each row.
      where: for the message.
      field: for the message.
      rows: their numbers, for the message.

    Raises:
      InputError: if one is above zero or infinite, or the probabilities of an example sum to more than one.
    """
    with np.errstate(over="ignore"):
        sums = np.nansum(np.exp(log_probs, dtype=np.float64), axis=-1)
    is_wrong = np.isinf(log_probs).any(axis=-1) | (np.nan_to_num(log_probs, nan=-1.0) > SUM_TOLERANCE).any(axis=-1)
    if (wrong := np.flatnonzero(is_wrong | (sums > 1 + SUM_TOLERANCE))).size:
        largest = np.nanmax(log_probs[wrong[0]])
        found = (
            f"row {rows[wrong[0]]} with largest element {largest:.3g}, whose exponentials sum to {sums[wrong[0]]:.3g}"
        )
        expected = "finite log probabilities in nats, zero or below, of classes whose probabilities sum to one at most"
        raise InputError(where, field, found, expected, "Give log probabilities, and no probabilities or logits.")
