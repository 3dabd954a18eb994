"""Checks of what users hand in: each returns it in the library's own form, or raises an error that says what to do.

``where`` is the file or the argument that holds the values, ``field`` the part of it; both are for the message only.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree, Shaped
from numpy.typing import ArrayLike

from mtbkd_jax.errors import InputError
from mtbkd_jax.tree import named_leaves
from mtbkd_jax.types import Params

Kind = Literal["logits", "probabilities"]
"""What a teacher puts out."""

Names = Sequence[Any] | np.ndarray
"""Text or integers that stand for examples or classes."""

SUM_TOLERANCE = 0.01
"""How far from one the probabilities of an example may sum: room for float16 and for three printed decimals."""

FREE_BYTES = 2**28
"""Memory that may be taken whatever it comes from."""

_MOST_EXPANSION = 100
_LAST_CODE_POINT, _SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)
_POSITIVE = "a finite number above zero"
_NOT_NEGATIVE = "a finite number, zero or above"


def check_positive(**named: Any) -> None:
    """Check that every argument is a finite number above zero; what is traced by JAX cannot be looked at and passes.

    >>> check_positive(temperature=1.0, concentration=0)
    Traceback (most recent call last):
    mtbkd_jax.errors.InputError: concentration: value: found 0, expected a finite number above zero. Pass another value.
    """
    for name, value in named.items():
        _check_numbers(value, _POSITIVE, name, "value")


def check_not_negative(**named: Any) -> None:
    """Check that every argument is a finite number, zero or above; what is traced by JAX passes."""
    for name, value in named.items():
        _check_numbers(value, _NOT_NEGATIVE, name, "value")


def check_whole(where: str, least: int, /, **named: Any) -> None:
    """Check that every argument is a whole number, ``least`` or above.

    >>> check_whole("sampling", 1, num_chains=4, num_draws=0)
    Traceback (most recent call last):
    mtbkd_jax.errors.InputError: sampling: num_draws: found 0, expected a whole number, 1 or above. Pass another value.
    """
    for name, value in named.items():
        if not isinstance(value, int | np.integer) or value < least:
            raise InputError(where, name, f"{value}", f"a whole number, {least} or above", "Pass another value.")


def check_one_of(allowed: Sequence[str], where: str, field: str, value: Any) -> None:
    """Check that a word is among those allowed."""
    if value not in allowed:
        raise InputError(where, field, repr(value), f"one of {', '.join(map(repr, allowed))}", "Check the spelling.")


def check_seed(seed: Any, where: str) -> None:
    """Check that a seed is a whole number of 64 bits, as JAX takes them."""
    if not isinstance(seed, int | np.integer) or not -(2**63) <= seed < 2**63:
        raise InputError(where, "seed", f"{seed}", "a whole number of 64 bits", "Choose another seed.")


def check_softening(value: Any, where: str, field: str = "softening") -> float:
    """Return the temperature that a teacher's logits were divided by already: one finite number above zero."""
    if np.size(value) != 1:
        raise InputError(where, field, f"{np.size(value)} numbers", _POSITIVE, "Give a single number for each teacher.")
    _check_numbers(value, _POSITIVE, where, field)
    return float(np.asarray(value).item())


def check_num_classes(num_classes: int, where: str, field: str = "classes") -> None:
    """Check that there are two classes or more: with one there is nothing to learn."""
    if num_classes < 2:
        action = "Give every class a column; for two classes, give both."
        raise InputError(where, field, f"{num_classes}", "two classes or more", action)


def check_num_examples(num_examples: int, where: str, field: str = "examples") -> None:
    """Check that there are two examples or more: fewer have no spread and cannot be cross-validated."""
    if num_examples < 2:
        raise InputError(where, field, f"{num_examples}", "two examples or more", "Give more examples.")


def check_same_number(of: str, found: int, expected: int, as_in: str, where: str, field: str) -> None:
    """Check that there are as many ``of`` something as elsewhere."""
    if found != expected:
        action = f"Give the same {of}, in the same order."
        raise InputError(where, field, f"{found} {of}", f"{expected}, {as_in}", action)


def check_same(where: str, found: Any, expected: Any, name: str = "") -> None:
    """Refuse what was begun and is not what is asked for now, by the name of the first field that differs.

    Args:
      where: the file that says what was begun.
      found: what it says, as JSON holds it.
      expected: the same of what is asked for.
      name: of the field that holds both, for the message.
    """
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            check_same(where, found.get(key), expected.get(key), f"{name}.{key}" if name else key)
    elif found != expected:
        action = "Go on with the options and the input files that it was begun with, or begin anew elsewhere."
        raise InputError(where, name, f"{found}", f"{expected}, as is asked for now", action)


def check_expansion(num_bytes: int, stored_bytes: int, where: str, field: str) -> None:
    """Refuse what takes far more memory than it takes where it is stored, so that no small file fills the memory.

    >>> check_expansion(10**12, 10**6, "bomb.npz", "inputs")
    Traceback (most recent call last):
    mtbkd_jax.errors.InputError: bomb.npz: inputs: found 1,000,000,000,000 bytes that are stored as 1,000,000, expected
    100 times as many at the most. If that is what they are, save them uncompressed, or in several files.
    """
    if num_bytes > FREE_BYTES and num_bytes > _MOST_EXPANSION * stored_bytes:
        found = f"{num_bytes:,} bytes that are stored as {stored_bytes:,}"
        action = "If that is what they are, save them uncompressed, or in several files."
        raise InputError(where, field, found, f"{_MOST_EXPANSION} times as many at the most", action)


def check_numbers(values: ArrayLike, where: str, field: str) -> Float[np.ndarray, "..."]:
    """Return an array as float32, or say that it holds something else than numbers."""
    array = np.asarray(values)
    if not (jnp.issubdtype(array.dtype, np.floating) or jnp.issubdtype(array.dtype, np.integer) or array.dtype == bool):
        action = "Convert it to real numbers before it is saved, for example by `.astype('float32')`."
        raise InputError(where, field, f"elements of type {array.dtype}", "real numbers", action)
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def check_finite(values: ArrayLike, where: str, field: str) -> Float[np.ndarray, "examples *rest"]:
    """Return an array with a row for each example as float32, every element of it finite."""
    array = check_numbers(values, where, field)
    if array.ndim == 0:
        raise InputError(where, field, "a single number", "an array with a row for each example", "Give an array.")
    if found := found_not_finite(array):
        raise InputError(where, field, found, "finite numbers", "Correct or leave out these rows.")
    return array


def check_example_shape(inputs: Shaped[np.ndarray, "examples ..."], shape: tuple[int, ...], where: str) -> None:
    """Refuse inputs whose examples are not of the shape of those that were learned from."""
    if inputs.shape[1:] != shape:
        found, expected = f"examples of shape {inputs.shape[1:]}", f"{shape}, as in training"
        raise InputError(where, "inputs", found, expected, "Give the same features in the same order.")


def found_not_finite(array: Float[np.ndarray, "examples *rest"]) -> str | None:
    """What a message says of an array with rows that are not finite; None where all are."""
    rows = np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
    if not rows.size:
        return None
    kind = "NaN" if np.isnan(array[rows[0]]).any() else "an infinite number (in float32)"
    return f"{kind} in row {rows[0]}, and {rows.size} of {len(array)} rows with NaN or infinite numbers"


def check_ids(ids: Names, where: str, field: str = "ids") -> np.ndarray:
    """Return the ids of examples as an array of text: integers become their decimal text, bytes are read as UTF-8.

    Raises:
      InputError: if one is empty or there twice, or they are neither text nor integers.
    """
    return _check_not_repeated(_check_names(ids, "example", where, field), "example", where, field)


def check_groups(groups: Names, where: str, field: str = "groups") -> np.ndarray:
    """Return the group of each example as text, with the checks of ``check_ids``; many may be of one group."""
    return _check_names(groups, "example", where, field)


def check_class_names(names: Names, where: str, field: str = "class_names") -> tuple[str, ...]:
    """Return the names of two classes or more, with the checks of ``check_ids``."""
    array = _check_not_repeated(_check_names(names, "class", where, field), "class", where, field)
    check_num_classes(len(array), where, field)
    return tuple(array.tolist())


def check_labels(
    labels: ArrayLike, num_classes: int | None, where: str, field: str = "labels"
) -> Int[np.ndarray, " examples"]:
    """Return labels as int32, each a class counted from 0, or −1 where there is no label.

    Args:
      labels: one integer for each example.
      num_classes: how many classes there are; None where nothing says so.
      where: for the message.
      field: for the message.
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        action = "Give the index of the class, not one column for each class."
        raise InputError(where, field, f"an array of shape {array.shape}", "one integer for each example", action)
    if not np.issubdtype(array.dtype, np.integer):
        action = "Code the classes as 0, 1, 2, ... and a missing label as -1, and convert by `.astype(int)`."
        raise InputError(where, field, f"elements of type {array.dtype}", "integers", action)
    highest = np.iinfo(np.int32).max if num_classes is None else num_classes - 1
    if (outside := np.flatnonzero((array < -1) | (array > highest))).size:
        found = f"{array[outside[0]]} in row {outside[0]}, and {outside.size} of {len(array)} labels out of range"
        expected = (
            f"integers from -1 (no label) to {'the number of classes less one' if num_classes is None else highest}"
        )
        raise InputError(
            where, field, found, expected, "Count the classes from 0; write -1 only where there is no label."
        )
    return array.astype(np.int32)


def check_logits(logits: ArrayLike, where: str, field: str = "logits") -> Float[np.ndarray, "examples classes"]:
    """Return logits as float32: finite, a row for each example and a column for each of two classes or more."""
    array = check_finite(logits, where, field)
    if array.ndim != 2:
        action = "Give a row for each example and a column for each class."
        raise InputError(where, field, f"an array of shape {array.shape}", "two axes, [examples, classes]", action)
    check_num_classes(array.shape[1], where, field)
    return array


def check_probabilities(
    probabilities: ArrayLike, where: str, field: str = "probs"
) -> Float[np.ndarray, "examples classes"]:
    """Return probabilities as float32: what ``check_logits`` asks for, and each row a distribution."""
    array = check_logits(probabilities, where, field)
    wrong = np.flatnonzero(~_is_distribution(array))
    if wrong.size:
        row = array[wrong[0]]
        found = f"row {wrong[0]} with least element {row.min():.3g} and sum {row.sum():.3g}, and {wrong.size} such rows"
        action = "If these are logits, say so: `logits` as the name of the field, or the kind `logits`."
        raise InputError(where, field, found, "non-negative numbers that sum to one in each row", action)
    return array


def looks_like_probabilities(array: Float[np.ndarray, "examples classes"]) -> bool:
    """Tell whether most rows are non-negative and sum to one, as logits hardly ever do."""
    return bool(2 * _is_distribution(array).sum() > len(array))


def as_logits(
    values: ArrayLike, kind: Kind | None, where: str, field: str = "logits"
) -> Float[np.ndarray, "examples classes"]:
    """Check a teacher's outputs and return them as logits.

    Probabilities become log probabilities. A probability of zero becomes the smallest normal float32, 1.2e-38: the
    logarithm stays finite, and the probability changes by less than float32 resolves.

    Args:
      values: ``[examples, classes]``.
      kind: what they are; None means logits that nobody vouched for.
      where: the file or the argument that holds them, for the message.
      field: the part of it, for the message.

    Raises:
      InputError: if a number is not finite, a row of probabilities is none, or logits that nobody vouched for look like
        probabilities.
    """
    if kind not in (None, "logits", "probabilities"):
        raise InputError(where, "kind", repr(kind), "'logits' or 'probabilities'", "Check the spelling.")
    if kind == "probabilities":
        probs = np.maximum(check_probabilities(values, where, field), np.finfo(np.float32).tiny)
        return np.log(probs / probs.sum(axis=1, keepdims=True))
    logits = check_logits(values, where, field)
    if kind is None and looks_like_probabilities(logits):
        found = "rows that are non-negative and sum to one, as probabilities do"
        action = "Say what they are: the kind `probabilities`, or the kind `logits` if that is what they really are."
        raise InputError(where, field, found, "logits", action)
    return logits


def some(values: list[Any]) -> str:
    """Name the first few of some values in a message."""
    return ", ".join(repr(value) for value in values[:3]) + (", ..." if len(values) > 3 else "")


def _is_distribution(array: np.ndarray) -> np.ndarray:
    return (array >= 0).all(axis=1) & (np.abs(array.sum(axis=1) - 1) < SUM_TOLERANCE)


def _check_numbers(value: Any, expected: str, where: str, field: str) -> None:
    """Check a number, or every number of an array; ``expected`` is one of the two descriptions above."""
    if isinstance(value, jax.core.Tracer):
        return
    numbers = np.asarray(value)
    if numbers.dtype.kind in "iuf":
        allowed = numbers > 0 if expected == _POSITIVE else numbers >= 0
        if (np.isfinite(numbers) & allowed).all():
            return
    raise InputError(where, field, f"{value}", expected, "Pass another value.")


def check_text(texts: Sequence[str] | np.ndarray, where: str, field: str) -> np.ndarray:
    """Return text as an array, whose elements all have room for the longest of them.

    Raises:
      InputError: if that takes far more memory than the text itself, or there is something in it that is no text.
    """
    if isinstance(texts, np.ndarray):
        array = texts
    else:
        longest, num_letters = max(map(len, texts), default=0), sum(map(len, texts))
        check_expansion(4 * longest * len(texts), num_letters + len(texts), where, field)
        array = np.array(texts, str)
    if array.dtype.kind == "U" and array.size:
        points = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("=")).view(np.uint32)
        if ((points > _LAST_CODE_POINT) | ((points >= _SURROGATES[0]) & (points <= _SURROGATES[1]))).any():
            found, action = "numbers that stand for no letter", "Save it again as text, in UTF-8 where you can choose."
            raise InputError(where, field, found, "text", action)
    return array


def _check_names(names: Names, of: str, where: str, field: str) -> np.ndarray:
    is_text = not isinstance(names, np.ndarray) and all(isinstance(name, str) for name in names)
    array = check_text(names, where, field) if is_text or isinstance(names, np.ndarray) else np.asarray(names)
    if array.ndim != 1:
        expected = f"a flat array, one for each {of}"
        raise InputError(where, field, f"an array of shape {array.shape}", expected, "Give a flat array.")
    if array.dtype.kind == "S":
        try:
            array = np.strings.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(where, field, f"bytes ({error})", "UTF-8", "Save it as text.") from error
    elif array.dtype.kind not in "UTiu":
        action = "Convert it to text, for example by `.astype(str)`."
        raise InputError(where, field, f"elements of type {array.dtype}", "text or integers", action)
    array = array.astype(str)
    if (missing := np.flatnonzero(array == "")).size:
        found = f"{missing.size} missing, the first in row {missing[0]}"
        raise InputError(where, field, found, f"one for each {of}", f"Fill it in or leave the {of} out.")
    return array


def _check_not_repeated(array: np.ndarray, of: str, where: str, field: str) -> np.ndarray:
    unique, counts = np.unique(array, return_counts=True)
    if twice := unique[counts > 1].tolist():
        found = f"{len(twice)} more than once: {some(twice)}"
        raise InputError(where, field, found, "each of them once", f"Remove or rename the repeated {of}.")
    return array


def check_params(params: Params, template: PyTree, where: str) -> None:
    """Check that parameters have the structure, shapes and types of a template, and are finite.

    Args:
      params: what to check.
      template: arrays, or ``jax.ShapeDtypeStruct`` for them.
      where: the file or the argument that holds the parameters, for the message.
    """
    check_layout(layout_of(params), template, where)
    found, expected = (str(jax.tree.structure(tree)) for tree in (params, template))
    if found != expected:
        raise InputError(where, "tree", found, expected, "Make both with the same student.")
    for name, leaf in named_leaves(params).items():
        if num_bad := int(np.sum(~np.isfinite(np.asarray(leaf)))):
            found = f"{num_bad} of {leaf.size} numbers NaN or infinite"
            raise InputError(where, name, found, "finite numbers", "Train or save this center again.")


def layout_of(tree: PyTree) -> dict[str, str]:
    """Type and shape of each leaf in words, by name."""
    return {name: described(leaf.shape, leaf.dtype) for name, leaf in named_leaves(tree).items()}


def described(shape: Sequence[int], dtype: Any) -> str:
    """Type and shape of an array in words."""
    return f"{dtype} of shape {tuple(shape)}"


def check_layout(found: dict[str, str], template: PyTree, where: str) -> None:
    """Check the names, shapes and types of leaves, before there is any number in them."""
    expected = layout_of(template)
    others = sorted(found.keys() - expected.keys())
    for name, description in expected.items():
        if name not in found:
            instead = f", but {len(others)} that the student does not have: {some(others)}" if others else ""
            action = "Save all parameters of this student, named by its keys joined by dots."
            raise InputError(where, name, f"no such leaf{instead}", description, action)
        if found[name] != description:
            action = "Give parameters of this very architecture; convert them if only the type differs."
            raise InputError(where, name, found[name], description, action)
    if others:
        action = f"Remove it, and whatever else is not among the student's {len(expected)} leaves."
        raise InputError(where, others[0], found[others[0]], "no such leaf", action)
