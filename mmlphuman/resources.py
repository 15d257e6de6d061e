"""What the machine gives: memory, cores, open files. Where it runs out, that is recognised and told in one line.

Imports nothing that is not there: the viewer's machine has no torch.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from mmlphuman.text import one_line

R = TypeVar("R")

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

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
CONTAINER_CORES = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
OPEN_FILES = 128


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


def memory_limit() -> float:
    """Bytes that this process may have at most: of the machine, its container and its user's limit, the least known."""
    limits = [float("inf")]
    with suppress(ValueError, OSError, AttributeError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in CONTAINER_LIMITS:
        with suppress(ValueError, OSError):
            limits.append(float(Path(path).read_text()))
    with suppress(ImportError):
        import resource  # not on Windows

        allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
        limits += [allowed] if allowed != resource.RLIM_INFINITY else []
    return min(limits)


def require_memory(needed: float, what: str) -> None:
    """OutOfMemory, before anything is tried, if `needed` bytes can never be had."""
    limit = memory_limit()
    if needed > limit:
        raise OutOfMemory(
            f"out of memory: {what} ({needed / 2**30:,.1f} GiB are needed, {limit / 2**30:,.1f} exist)"
        )


def available_cores() -> int:
    """Of this machine, as far as this process may use them: its affinity, and the share that its container gets."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for path in CONTAINER_CORES:
        with suppress(ValueError, OSError, IndexError):
            quota, period = [float(part) for file in path for part in Path(file).read_text().split()][:2]
            if quota > 0:
                cores = min(cores, max(1, math.ceil(quota / period)))
    return cores


def require_open_files() -> None:
    """Readers, viewers and logs open files; where too few are allowed, something would wait for ever. ValueError."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        return
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))
    else:
        raise ValueError(
            f"only {soft} files may be open at a time, {OPEN_FILES} are needed; raise it: ulimit -n 1024"
        )


def reason(error: BaseException) -> str:
    """The first sentence of what was said, which can be a page."""
    text = one_line(error)
    return text if len(text) <= 160 else text[:157] + "..."


def in_threads(work: Callable[[int, Callable[[], None]], R], count: int) -> list[R]:
    """work(number, check) for all numbers below `count`, in as many threads as there are cores.

    An error, or Ctrl-C, is raised as soon as the others have ended, which they do where they next call `check`.
    """
    ended = threading.Event()

    def check() -> None:
        if ended.is_set():
            raise CancelledError

    def of_number(number: int) -> R:
        check()
        return work(number, check)

    with ThreadPoolExecutor(available_cores()) as pool:
        futures = [pool.submit(of_number, number) for number in range(count)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # Ctrl-C included; if all is done it stops nobody
            ended.set()
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:  # the lowest number's, of those that are not ends of others
        raise next((error for error in errors if not isinstance(error, CancelledError)), errors[0])
    return [future.result() for future in futures]
