"""What all commands share: errors as one line, the device, a folder for results, the versions for their record.

Without torch until something of it is asked for: a command reads its words first and loads what takes seconds then.
"""

from __future__ import annotations

import errno
import io
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from mmlphuman.resources import (
    OutOfMemory,
    available_cores,
    is_out_of_memory,
    reason,
    require_open_files,
)
from mmlphuman.text import one_line

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
LESS_MEMORY = "give the machine or container more, or lower num_workers, image_scaling or init_num_gs"
INTERRUPTED = "interrupted; training goes on with --resume, script/fit_capture.py with the same words"
RECORDED_PACKAGES = ("torch", "gsplat", "numpy", "smplx", "opencv-python-headless", "opencv-python")


class ErrorOfOneProcess(ValueError):
    """Of one among several processes of a command (processes.Ranks); the others do not know it."""


def run_command(main: Callable[..., T], *arguments: object) -> T:
    """What `main` returns of the arguments; an expected error becomes one line on stderr and exit status 1.

    Commands call it twice: for reading their words, before torch is loaded, and for their work.
    Of several processes the first on each host says what all of them meet, such as a wrong setting.
    """
    open_streams()
    one_of_several, first = "LOCAL_RANK" in os.environ, os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        if sys.flags.optimize > 1:
            raise ValueError("PYTHONOPTIMIZE=2 (-OO) takes out the texts that commands need; unset it")
        require_open_files()
        if (loaded := sys.modules.get("torch")) and "OMP_NUM_THREADS" not in os.environ:
            loaded.set_num_threads(min(loaded.get_num_threads(), available_cores()))
        return main(*arguments)
    except (ValueError, OSError) as error:
        if is_out_of_memory(error) and not isinstance(error, OutOfMemory):
            error = OutOfMemory(f"out of memory ({reason(error)}); {LESS_MEMORY}")
        if first or isinstance(error, ErrorOfOneProcess):
            print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        if one_of_several:
            leave_at_once()
        sys.exit(1)
    except Exception as error:
        if is_out_of_memory(error):
            print(f"error: out of memory ({reason(error)}); {LESS_MEMORY}", file=sys.stderr, flush=True)
        elif one_of_several:
            traceback.print_exc()
        else:
            raise
        if one_of_several:
            leave_at_once()
        sys.exit(1)
    except KeyboardInterrupt:
        if first:
            print(INTERRUPTED, file=sys.stderr, flush=True)
        if one_of_several:
            leave_at_once(130)
        sys.exit(130)


class _Listener(io.FileIO):
    """stdout or stderr. Once nobody reads it any more (`| head`, a terminal that went), what is said goes nowhere and
    the work goes on."""

    def write(self, data, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            return memoryview(data).nbytes


def open_streams() -> None:
    """Where a command was started without stdout or stderr, or they have gone, what it says goes nowhere; and a path
    that is no text is written somehow. A file that took stderr's place would be written into by whoever complains."""
    for number, name in ((0, ""), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        stream = getattr(sys, name) if name else None
        if name and stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  for the rest of the process
        elif isinstance(stream, io.TextIOWrapper) and stream is getattr(
            sys, f"__{name}__"
        ):  # not what took its place
            with suppress(OSError):
                stream.flush()
            setattr(sys, name, _listened(stream))


def _listened(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    listener = _Listener(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        listener if stream.write_through else io.BufferedWriter(listener),  # PYTHONUNBUFFERED
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def leave_at_once(status: int = 1) -> NoReturn:
    """An orderly end would wait for exchanges with the other processes, which may never come about."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one. Raises ValueError for a device that is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):  # PyTorch knows others
        raise ValueError(f"device: '{name}' is no device that is used here; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {name}: no NVIDIA GPU is usable here; use device: cpu, or auto")
    return device


def run_shown(checkout: Path, *words: object, program: str | Path = sys.executable) -> None:
    """Prints a command, so that the same can be done by hand, and runs it in the checkout; ends where it fails."""
    texts = [str(word) for word in words]
    shown = "python" if program == sys.executable else str(program)
    print(f"\n$ {shown} {shlex.join(texts)}", flush=True)
    status = subprocess.run([str(program), *texts], cwd=checkout).returncode
    if status != 0:
        sys.exit(status)


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


def versions() -> dict:
    """Python, packages, GPU and the commit of this checkout, as far as they are known."""
    import torch

    packages = {}
    for package in RECORDED_PACKAGES:
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit = None  # no git here
    return {
        "python": platform.python_version(),
        "packages": packages,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit,
    }
