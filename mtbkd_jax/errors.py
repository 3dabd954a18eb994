"""Errors that the library raises on purpose.

Every one of them derives from ``MTBKDError``, and from the built-in exception that a caller would expect.
"""


class MTBKDError(Exception):
    """Root of the errors that the library raises on purpose."""


class InputError(MTBKDError, ValueError):
    """Something handed to the library is not what it must be.

    Args:
      where: the file, directory or argument that holds it.
      field: which part of it.
      found: what was there.
      expected: what is allowed.
      action: what to do about it, as a sentence.

    >>> print(InputError("digits.npz", "labels", "the value 12", "integers from -1 to 9", "Correct the label."))
    digits.npz: labels: found the value 12, expected integers from -1 to 9. Correct the label.
    """

    def __init__(self, where: str, field: str, found: str, expected: str, action: str):
        super().__init__(where, field, found, expected, action)
        self.where, self.field, self.found, self.expected, self.action = where, field, found, expected, action

    def __str__(self) -> str:
        """The whole message on one line."""
        return f"{self.where}: {self.field}: found {self.found}, expected {self.expected}. {self.action}"


class CorruptDataError(InputError):
    """Stored data were truncated or altered after they had been written."""


class TeacherError(MTBKDError, RuntimeError):
    """A teacher failed on inputs that passed all checks: its framework raised an error, or its server gave no answer.

    Takes the name of the teacher, what happened, and what to do about it, as a sentence.

    >>> print(TeacherError("forest", "out of memory in rows 0 to 63", "Ask for fewer rows at a time."))
    forest: out of memory in rows 0 to 63. Ask for fewer rows at a time.
    """

    def __str__(self) -> str:
        """The whole message on one line."""
        teacher, what, action = self.args
        return f"{teacher}: {what}. {action}"


class StorageError(MTBKDError, OSError):
    """Data could not be written or read: the disk is full, or permission is lacking.

    Takes the arguments of ``OSError``: the error number, what happened and what to do, and the path.
    """
