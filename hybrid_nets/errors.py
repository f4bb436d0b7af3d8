"""Errors of the user's making: one class, and one line on the screen instead of a traceback."""

from __future__ import annotations

import logging
import os
import re
import sys
from types import TracebackType

__all__ = ["InputError", "show_short_errors"]

logger = logging.getLogger(__name__)


class InputError(ValueError):
    """Data, a checkpoint or a setting that can't be used; the message says what to do about it."""


def find_input_error(error: BaseException | None) -> str | None:
    """The message of the InputError that ``error`` comes from, through MONAI's wrappers and loader processes."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        # A loader process sends its error as text; the last line of its traceback is the one we raised.
        in_worker = re.findall(rf"^{re.escape(__name__)}\.InputError: (.*)", str(error), flags=re.MULTILINE)
        if in_worker:
            return in_worker[-1]
        error = error.__cause__ or error.__context__
    return None


def show_short_errors() -> None:
    """From now on, end on an InputError with ``error: …`` on one line and exit status 1, not with a traceback.

    Nor is there one after Ctrl+C. Set the environment variable ``HYBRID_NETS_TRACEBACK=1`` to see it as well. The
    bundles call this when they start; other errors, and programs that import this package, are left alone.
    """
    previous = sys.excepthook
    if previous.__module__ == __name__:
        return  # called before: one message is enough

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        message = find_input_error(error)
        expected = message is not None or issubclass(kind, KeyboardInterrupt)
        if not expected or os.environ.get("HYBRID_NETS_TRACEBACK"):
            previous(kind, error, traceback)
        if message is not None:
            print(f"\nerror: {message}", file=sys.stderr)  # a progress bar may have left its line open

    sys.excepthook = hook
