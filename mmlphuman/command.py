"""What all commands share: errors as one line, the device, the run's folder of records."""

from __future__ import annotations

import sys
from collections.abc import Callable

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
