"""Composition of protein sequences: what a student can be told of a protein without any language model.

Where a protein goes is often written at its ends: signal peptides, transit peptides of mitochondria and plastids, and
nuclear signals near the N-terminus; the retention signal KDEL of the endoplasmic reticulum and the SKL of peroxisomes
in the last few residues. So composition is taken of the whole sequence and of windows at both ends. Of each window:

- the share of each of the 20 amino acids;
- the mean net charge of a residue at neutral pH: +1 for K and R, -1 for D and E, in elementary charges;
- the mean hydropathy of a residue on the scale of Kyte and Doolittle (J. Mol. Biol. 157, 1982, table 2), -4.5 to 4.5.

Beside them stand the natural logarithm of the number of residues, and the largest mean hydropathy of 19 residues in a
row, by which Kyte and Doolittle recognise segments that span a membrane.

A letter for a rare, ambiguous or unknown residue (B, J, O, U, X, Z) has its place in the sequence and counts towards no
share or mean.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mtbkd_jax.errors import InputError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
OTHER_RESIDUES = "BJOUXZ"
FIRST_WINDOWS = (10, 20, 40, 80)
LAST_WINDOWS = (4, 10, 20, 40)
SPAN = 19
"""Residues of a segment that spans a membrane."""

_CHARGE = np.array([{"K": 1.0, "R": 1.0, "D": -1.0, "E": -1.0}.get(letter, 0.0) for letter in AMINO_ACIDS])
# In the order of AMINO_ACIDS.
_HYDROPATHY = np.array(
    [1.8, 2.5, -3.5, -3.5, 2.8, -0.4, -3.2, 4.5, -3.9, 3.8, 1.9, -3.5, -1.6, -3.5, -4.5, -0.8, -0.7, 4.2, -0.9, -1.3]
)
_OTHER, _UNKNOWN = len(AMINO_ACIDS), len(AMINO_ACIDS) + 1
_CODES = np.full(256, _UNKNOWN)
_CODES[list(AMINO_ACIDS.encode())] = np.arange(len(AMINO_ACIDS))
_CODES[list(OTHER_RESIDUES.encode())] = _OTHER


def composition_features(sequences: Sequence[str], *, where: str = "sequences") -> Float[np.ndarray, "proteins 200"]:
    """Features of protein sequences, named by ``composition_names``, not standardised.

    A sequence that is shorter than a window is the window; where a window has none of the 20 amino acids, its shares
    and means are zero.

    Args:
      sequences: residues in one-letter code, capital letters, from the N-terminus to the C-terminus.
      where: what error messages call the source of the sequences.

    Raises:
      InputError: if a sequence is empty or has a letter that stands for no residue.

    >>> features = dict(zip(composition_names(), composition_features(["MKRLAAAADE"])[0].tolist(), strict=True))
    >>> [round(features[name], 3) for name in ("share of A", "share of L, last 4", "charge", "charge, last 4")]
    [0.4, 0.0, 0.0, -0.5]
    """
    return np.array(
        [_features(_encoded(sequence, row, where)) for row, sequence in enumerate(sequences)], np.float32
    ).reshape(len(sequences), len(composition_names()))


def composition_names() -> tuple[str, ...]:
    """Name of each feature, in their order.

    >>> len(composition_names())
    200
    """
    windows = ["", *(f", first {size}" for size in FIRST_WINDOWS), *(f", last {size}" for size in LAST_WINDOWS)]
    of_window = [*(f"share of {letter}" for letter in AMINO_ACIDS), "charge", "hydropathy"]
    names = [f"{name}{window}" for window in windows for name in of_window]
    return (*names, "log length", f"largest hydropathy of {SPAN}")


def _encoded(sequence: str, row: int, where: str) -> np.ndarray:
    """Number of each residue in ``AMINO_ACIDS``, or ``_OTHER``."""
    if not sequence:
        raise InputError(where, f"sequence {row}", "no residue", "one residue or more", "Leave this protein out.")
    codes = _CODES[np.frombuffer(sequence.encode("latin-1", "replace"), np.uint8)]
    if (places := np.flatnonzero(codes == _UNKNOWN)).size:
        found = f"the letter {sequence[places[0]]!r} at place {places[0] + 1} of {len(sequence)}"
        expected = f"one of {AMINO_ACIDS}, or {OTHER_RESIDUES} for other residues"
        raise InputError(where, f"sequence {row}", found, expected, "Write residues as capital letters, and no gaps.")
    return codes


def _features(codes: np.ndarray) -> np.ndarray:
    windows = [codes, *(codes[:size] for size in FIRST_WINDOWS), *(codes[-size:] for size in LAST_WINDOWS)]
    hydropathy = np.append(_HYDROPATHY, 0.0)[codes]
    span = min(SPAN, codes.size)
    largest = np.convolve(hydropathy, np.full(span, 1 / span), mode="valid").max()
    return np.concatenate([*map(_of_window, windows), [np.log(codes.size), largest]])


def _of_window(codes: np.ndarray) -> np.ndarray:
    counts = np.bincount(codes, minlength=_OTHER + 1)[: len(AMINO_ACIDS)]
    shares = counts / max(counts.sum(), 1)
    return np.array([*shares, shares @ _CHARGE, shares @ _HYDROPATHY])
