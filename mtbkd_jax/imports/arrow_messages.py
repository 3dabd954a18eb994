"""Whether a message of an Arrow stream is compressed, from its metadata: pyarrow says so only once all is in memory.

The metadata is a FlatBuffers table (Arrow's ``Message.fbs``). A table begins with the signed distance back to its
vtable, which has the lengths of both in 16 bits each, and then for each field where it lies in the table, or zero.
"""

import struct

_MESSAGE_HEADER_TYPE, _MESSAGE_HEADER = 1, 2
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DICTIONARY_DATA, _RECORD_COMPRESSION = 1, 3


def is_compressed(metadata: bytes) -> bool:
    """Whether the buffers of a message are.

    Raises:
      struct.error: if the metadata leads out of itself.
    """
    message = _indirect(metadata, 0)
    kind_at, header_at = (_field(metadata, message, field) for field in (_MESSAGE_HEADER_TYPE, _MESSAGE_HEADER))
    if kind_at is None or header_at is None:
        return False
    (kind,) = struct.unpack_from("<B", metadata, kind_at)
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return False
    header = _indirect(metadata, header_at)
    if kind == _DICTIONARY_BATCH:
        data_at = _field(metadata, header, _DICTIONARY_DATA)
        if data_at is None:
            return False
        header = _indirect(metadata, data_at)
    return _field(metadata, header, _RECORD_COMPRESSION) is not None


def _indirect(buffer: bytes, place: int) -> int:
    """Where the table lies that is pointed at from a place."""
    return place + struct.unpack_from("<I", buffer, place)[0]


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Where a field of a table lies; None where the table does not have it."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    if vtable < 0:
        raise struct.error("the table lies before its buffer")
    (length,) = struct.unpack_from("<H", buffer, vtable)
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", buffer, vtable + place)[0] if place + 2 <= length else 0
    return table + offset if offset else None
