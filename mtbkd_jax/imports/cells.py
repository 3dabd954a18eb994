"""What the cells of a column stand for: numbers, names or labels, or an error that says which is not."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from mtbkd_jax.checks import check_class_names, check_expansion, check_finite, check_labels, some
from mtbkd_jax.errors import InputError
from mtbkd_jax.imports.tables import Column

_NO_LABEL = -1
_LARGEST_LABEL = 2**31 - 1


def numbers(column: Column, where: str, field: str) -> Float[np.ndarray, "rows ..."]:
    """The cells as float32, every one of them there and finite.

    Raises:
      InputError: if one is missing, or no finite number.
    """
    _check_none_missing(column, where, field)
    values = column.values
    if isinstance(values, list):
        try:
            values = np.array(values, np.float64)
        except ValueError as error:
            action = "Correct the cell, where decimals are written with a point, or choose another column."
            raise InputError(where, field, str(error), "numbers", action) from error
    return check_finite(values, where, field)


def names(column: Column, where: str, field: str) -> list[str]:
    """The cells as text, every one of them there: text as it is, and whole numbers as their decimals.

    Raises:
      InputError: if one is missing, or they are neither text nor whole numbers.
    """
    _check_none_missing(column, where, field)
    values = column.values
    if isinstance(values, list):
        return values
    if values.ndim != 1 or values.dtype.kind not in "iu":
        found, action = (
            f"elements of type {values.dtype}, {values.shape}",
            "Convert them to text before they are saved.",
        )
        raise InputError(where, field, found, "text or whole numbers, one for each example", action)
    return list(map(str, values.tolist()))


def labels(
    columns: Iterable[Column], class_names: Sequence[str] | None, where: str, field: str
) -> tuple[Int[np.ndarray, " examples"], tuple[str, ...] | None]:
    """The labels of all batches of a column, −1 where missing, and the names of the classes.

    Text that is whole numbers throughout, and no class name, is the numbers of the classes. Other text is names: among
    ``class_names``, or where none are given each a class of its own, in alphabetical order.

    Raises:
      InputError: if a label is no whole number, out of range, or no name of a class.
    """
    given = None if class_names is None else check_class_names(class_names, where)
    batches = list(columns)
    texts = [text for batch in batches if isinstance(batch.values, list) for text in batch.values]
    if texts:
        return _labels_of_texts(texts, given, where, field)
    coded = [_whole_numbers(batch, where, field) for batch in batches]
    joined = np.concatenate(coded) if coded else np.empty(0, np.int64)
    return check_labels(joined, None if given is None else len(given), where, field), given


def _labels_of_texts(
    texts: list[str], given: tuple[str, ...] | None, where: str, field: str
) -> tuple[Int[np.ndarray, " examples"], tuple[str, ...] | None]:
    distinct = set(texts) - {""}
    if given is None or not distinct <= set(given):
        as_numbers = {text: number for text in distinct if (number := _number(text)) is not None}
        if as_numbers or not distinct:
            # Numbers, and so all of them: among names they are more likely a mistake.
            for text in sorted(distinct):
                if not float(as_numbers.get(text, math.nan)).is_integer() or abs(as_numbers[text]) > _LARGEST_LABEL:
                    expected = "whole numbers, or names of classes, and nothing where there is no label"
                    action = "Correct the cell, or give the names of all classes."
                    raise InputError(where, field, repr(text), expected, action)
            codes = {text: int(number) for text, number in as_numbers.items()}
            coded = np.array([codes.get(text, _NO_LABEL) for text in texts], np.int64)
            return check_labels(coded, None if given is None else len(given), where, field), given
        if given is not None:
            unknown = sorted(distinct - set(given))
            raise InputError(where, field, some(unknown), f"one of {some(list(given))}", "Correct it, or name it too.")
        given = check_class_names(sorted(distinct), where, field)
    places = {name: place for place, name in enumerate(given)}
    return np.array([places.get(text, _NO_LABEL) for text in texts], np.int32), given


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole_numbers(batch: Column, where: str, field: str) -> Int[np.ndarray, " rows"]:
    """Labels as whole numbers; tables keep them as floating-point numbers where some are missing."""
    values = np.asarray(batch.values)
    if values.ndim == 1 and values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float64)
        wrong = np.flatnonzero(~(np.isfinite(values) & (np.trunc(values) == values) & (abs(values) <= _LARGEST_LABEL)))
        if wrong.size:
            action = "Code the classes as 0, 1, 2, ..., and a missing label as -1 or by nothing at all."
            raise InputError(where, field, f"{values[wrong[0]]}", "whole numbers", action)
        values = values.astype(np.int64)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    coded = check_labels(values, None, where, field)
    return np.where(batch.is_missing, _NO_LABEL, coded)


def _check_none_missing(column: Column, where: str, field: str) -> None:
    if (missing := np.flatnonzero(column.is_missing)).size:
        found = f"{missing.size} missing, the first in row {missing[0]}"
        raise InputError(where, field, found, "one for each example", "Fill it in or leave the example out.")


class GrowingBytes:
    """Counts what a table has taken in memory so far, and refuses what its length cannot account for."""

    def __init__(self, where: str, stored_bytes: int):
        self._where, self._stored_bytes, self._num_bytes = where, stored_bytes, 0

    def add(self, num_bytes: int, field: str) -> None:
        """Count some more.

        Raises:
          InputError: if that is far more than what is stored.
        """
        self._num_bytes += num_bytes
        check_expansion(self._num_bytes, self._stored_bytes, self._where, field)
