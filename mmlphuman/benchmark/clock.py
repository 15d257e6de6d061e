"""Reading the clock right on both kinds of device.

On a GPU work is queued: a moment is an event in the queue, read after everything has run, or the processor's clock
after a synchronisation. On a CPU a moment is the processor's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Moment = torch.cuda.Event | float


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def moment(device: torch.device) -> Moment:
    """Now, in the order of what the device has been given to do; costs no synchronisation."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def milliseconds(begin: Moment, end: Moment) -> float:
    """Between two moments of one device, after a synchronisation."""
    if isinstance(begin, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event), "two moments of different devices"
        return begin.elapsed_time(end)
    assert isinstance(end, float), "two moments of different devices"
    return 1000 * (end - begin)


def wall_milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """By the clock on the wall, from an idle device to the end of all that `work` queued."""
    synchronize(device)
    begin = time.perf_counter()
    work()
    synchronize(device)
    return 1000 * (time.perf_counter() - begin)
