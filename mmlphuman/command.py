"""What all commands share: errors as one line, the device, the run's folder of records."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch


def run_command(main: Callable[[], None]) -> None:
    """Calls `main`; an expected error becomes one line on stderr and exit status 1."""
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; a training run continues with --resume", file=sys.stderr)
        sys.exit(130)


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one. Raises ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: '{name}' is no device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {name}: no NVIDIA GPU is usable here; use device: cpu, or auto")
    return device


def require_writable(folder: Path, flag: str = "--out_dir") -> None:
    """Makes the folder that results go to, before the long part. ValueError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{flag} {folder} cannot be written to ({error.strerror}); choose another folder"
        ) from error
