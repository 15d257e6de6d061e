"""One run at a time in a model folder: two would overwrite each other's checkpoints and logs.

The lock is the operating system's, on a file in the folder: it goes with the process, however that ends.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

FILE_NAME = "run.lock"  # says who trains here, or who did last


def lock_run(model_dir: Path) -> None:
    """Locks the folder for the rest of this process; ValueError, one line, if another process trains in it.

    Where the system or the folder knows no such locks nothing happens.
    """
    try:
        import fcntl
    except ImportError:
        return
    path = Path(model_dir) / FILE_NAME
    # Not closed: that would open the lock. A record lock, which processes that read samples do not inherit.
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        owner = path.read_text().strip() or "another process"
        os.close(descriptor)
        raise ValueError(
            f"{model_dir} is being trained by {owner}; stop that run, or choose another --out_dir"
        ) from error
    except OSError:
        os.close(descriptor)
        return
    os.ftruncate(descriptor, 0)
    with suppress(OSError):  # a full disk: locked all the same
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
