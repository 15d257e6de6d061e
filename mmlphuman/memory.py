"""Memory that runs out: recognised whoever says it, and told in one line with what asked for it.

Imports nothing that is not there: the viewer's machine has no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmlphuman.text import one_line

# How PyTorch (on a CPU), OpenCV and the operating system say it in exceptions of their own or of wider types.
SAYINGS = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "insufficient memory",
    "unable to allocate",
    "failed to allocate",
    "bad_alloc",
    "defaultcpuallocator",
    "alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Python's MemoryError (numpy's too), PyTorch's of CPU and GPU, OpenCV's, the operating system's ENOMEM."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    kinds = (RuntimeError, OSError, *(cv2.error for cv2 in [sys.modules.get("cv2")] if cv2 is not None))
    return isinstance(error, kinds) and any(saying in str(error).lower() for saying in SAYINGS)


class OutOfMemory(ValueError):
    """What did not fit, and how to mend it."""


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Where memory runs out inside, OutOfMemory says so in one line with `what` asked for it, such as a setting."""
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"out of memory: {what} ({reason(error)})") from error
        raise


def reason(error: BaseException) -> str:
    """The first sentence of what was said, which can be a page."""
    text = one_line(error)
    return text if len(text) <= 160 else text[:157] + "..."
