"""Seals: what tells numbers on the disk from such as were written for another place.

A checksum of a file says that it is as it was written, and not that it was written for this store, this chain and this
draw: files of several processes, or of two runs, are easily mixed up. A seal is the CRC-32 of where the numbers belong
and of the numbers.
"""

import zlib
from math import prod

import numpy as np
from jaxtyping import Int, UInt32


def seals_of(
    place: str, chains: Int[np.ndarray, " chains"], draws: Int[np.ndarray, " draws"], values: np.ndarray
) -> UInt32[np.ndarray, "chains draws"]:
    """The seal of every draw.

    Args:
      place: what all of them belong to.
      chains: their numbers.
      draws: their numbers.
      values: ``[chains, draws, ...]``, as they are stored.
    """
    rows = np.ascontiguousarray(values).reshape(*values.shape[:2], prod(values.shape[2:])).view(np.uint8)
    seals = [
        [zlib.crc32(row, zlib.crc32(f"{place} {chain} {draw}".encode())) for draw, row in zip(draws, of, strict=True)]
        for chain, of in zip(chains, rows, strict=True)
    ]
    return np.array(seals, np.uint32).reshape(chains.size, draws.size)
