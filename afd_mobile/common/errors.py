"""Every error a person can cause, one tree; the exit code lives on the class. And the warnings.

Each message is one line that names the file or value and the remedy.
"""


def reason_of(error: Exception) -> str:
    """What went wrong, without the path that an OSError names again."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class AfdError(Exception):
    """Base of all errors that end a command with one line instead of a traceback."""

    exit_code = 1


class AfdWarning(UserWarning):
    """What a person must know of a result in Python; the commands print it as a `note:`."""


class UsageError(AfdError):
    """An option's value that cannot be, or options that do not go together."""

    exit_code = 2


class InputError(AfdError):
    """Something given (checkpoint, weights, network, pictures) is missing, broken or unfit."""

    exit_code = 3


class ParityError(AfdError):
    """A stage of the export no longer computes what was trained.

    Of a precision other than float32 the others are published; else nothing is.
    """

    exit_code = 4


class ConversionError(AfdError):
    """A converter failed, ran out of time, or left something no phone takes.

    Attributes:
        chatter: the converter's own output, shown before the message.
    """

    exit_code = 5

    def __init__(self, message: str, *, chatter: str = "") -> None:
        super().__init__(message)
        self.chatter = chatter


class OutputError(AfdError):
    """The result cannot be written.

    It exists already, there is no folder for it, it is not writable, or the disk is full.
    """

    exit_code = 6


class DeviceError(AfdError):
    """A phone cannot be measured on: gone, unauthorised, offline, busy, full."""

    exit_code = 7


class MeasurementError(AfdError):
    """A case failed on its device: wrong outputs, or the tool failed, was killed, or said nonsense.

    It does not affect the other cases; the message becomes the reason of the verdict INVALID.
    """

    exit_code = 8
