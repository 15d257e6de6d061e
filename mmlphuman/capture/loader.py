"""SampleStream: samples for the training loop, read ahead by worker processes, in an exact order.

Data path: CaptureDataset + EndlessSampler -> Sample -> PackedSample -> another process -> pinned memory -> device ->
Sample again, as views -> training loop.
Shape letters: V views, H, W image height and width.

The order does not depend on the number of workers, and what was read ahead but not yet handed out does not
count: the saved state continues with the very next sample. Several processes (ranks) deal the samples out among
them, each reading only its own; the saved state is that of all together, so their number may change.

A sample travels in one piece of memory: each tensor that goes from process to process costs a handshake, and each copy
to a device a launch; one is enough. It is a memory file that lies in no folder: not in /dev/shm, where PyTorch would
put it and which holds few samples in a container.
"""

from __future__ import annotations

import copy
import itertools
import mmap
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from multiprocessing.reduction import DupFd
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.sampler import Draw, EndlessSampler
from mmlphuman.capture.worker_watch import WorkerContext, WorkerWatch
from mmlphuman.pose_layout import EXPRESSION_DIM, POSE_DIM
from mmlphuman.resources import OutOfMemory, available_cores, is_out_of_memory
from mmlphuman.types import Box, Cameras, MovableToDevice, Pose, Sample

POSE_NUMBERS = (POSE_DIM, 3, 9, EXPRESSION_DIM)  # joints, translation, rotation, expression
CAMERA_NUMBERS = (16, 9)  # w2c, intrinsics
# For the main process to come to an end in order, when all processes are told to end.
WORKER_GRACE_SECONDS = 30
LEFT_TO_MAIN = (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)


@dataclass(frozen=True)
class PackedSample(MovableToDevice):
    buffer: Tensor  # uint8: the pose's and cameras' numbers as float32, images, masks, edges
    frame: int
    camera_ids: tuple[int, ...]
    width: int
    height: int
    share: float
    persons: tuple[Box, ...]

    @classmethod
    def of(cls, sample: Sample) -> PackedSample:
        pose, cameras = sample.pose, sample.cameras
        of_pose = (pose.joints, pose.translation, pose.rotation, pose.expression)
        numbers = (*of_pose, cameras.w2c, cameras.intrinsics)
        floats = np.concatenate([tensor.numpy().ravel() for tensor in numbers])
        assert floats.dtype == np.float32
        parts = [floats, *(tensor.numpy() for tensor in (sample.images, sample.masks, sample.edges))]
        buffer = np.concatenate([part.view(np.uint8).ravel() for part in parts])
        return cls(
            torch.from_numpy(buffer), sample.frame, sample.camera_ids,
            cameras.width, cameras.height, sample.share, sample.persons,
        )  # fmt: skip

    def unpack(self) -> Sample:
        """Its tensors are views of `buffer`, where that is."""
        views, shape = len(self.camera_ids), (len(self.camera_ids), self.height, self.width)
        pixels = views * self.height * self.width
        sizes = [*POSE_NUMBERS, *(views * count for count in CAMERA_NUMBERS)]
        numbers, images, masks, edges = self.buffer.split([4 * sum(sizes), 3 * pixels, pixels, pixels])
        joints, translation, rotation, expression, w2c, intrinsics = numbers.view(torch.float32).split(sizes)
        return Sample(
            frame=self.frame,
            camera_ids=self.camera_ids,
            pose=Pose(joints, translation, rotation.view(3, 3), expression),
            cameras=Cameras(w2c.view(-1, 4, 4), intrinsics.view(-1, 3, 3), self.width, self.height),
            images=images.view(*shape, 3),
            masks=masks.view(torch.bool).view(shape),
            edges=edges.view(torch.bool).view(shape),
            share=self.share,
            persons=self.persons,
        )


@dataclass(frozen=True)
class HandedOver:
    """A PackedSample on its way to another process: where its memory is, and all else."""

    memory: str | Any  # the path of a memory file of a process that keeps it open, or a DupFd
    size: int
    others: tuple  # PackedSample's other fields

    def taken(self) -> PackedSample:
        """In the process that it has come to, once. OSError if it cannot be had."""
        memory = self.memory
        descriptor = os.open(memory, os.O_RDWR) if isinstance(memory, str) else memory.detach()
        try:
            mapped = mmap.mmap(descriptor, self.size)
        finally:
            os.close(descriptor)
        return PackedSample(torch.frombuffer(mapped, dtype=torch.uint8), *self.others)

    def pin_memory(self) -> PackedSample:
        """Called by PyTorch's DataLoader, in a thread of its own."""
        return self.taken().pin_memory()


class Sender:
    """Of a reading process: puts samples into memory that another process opens by its name.

    To hand a descriptor over, both processes must meet, which holds up the one that trains; a name is there at once.
    The memory is kept until it must have been opened.
    """

    def __init__(self, keep: int, by_name: bool):
        """keep: samples; of those before them all have arrived. by_name: else by the meeting of both."""
        self._open: deque[int] = deque()
        self._keep, self._by_name = keep, by_name

    def send(self, sample: PackedSample) -> HandedOver | PackedSample:
        """ValueError if that is not possible: raised here, for in the thread that sends it would be printed and
        forgotten."""
        if not hasattr(os, "memfd_create"):  # not Linux: PyTorch's own way
            return sample
        try:
            memory = os.memfd_create("sample")
            self._open.append(memory)
            unwritten = memoryview(sample.buffer.numpy())  # pyright: ignore[reportArgumentType]
            while unwritten:
                unwritten = unwritten[os.write(memory, unwritten) :]
            handed_over = f"/proc/{os.getpid()}/fd/{memory}" if self._by_name else DupFd(memory)
        except OSError as error:
            raise ValueError(
                f"frame {sample.frame}: a read sample cannot be handed over ({error.strerror})"
            ) from error
        while len(self._open) > self._keep:
            os.close(self._open.popleft())
        others = tuple(getattr(sample, field.name) for field in fields(sample)[1:])
        return HandedOver(handed_over, len(sample.buffer), others)


def memory_has_a_name() -> bool:
    """Whether this system opens a process's memory file by its path under /proc."""
    try:
        memory = os.memfd_create("sample")
    except (OSError, AttributeError):
        return False
    try:
        os.close(os.open(f"/proc/{os.getpid()}/fd/{memory}", os.O_RDWR))
    except OSError:
        return False
    finally:
        os.close(memory)
    return True


class SampleStream:
    """Endless iterator of Sample. Use as a context manager, or call `close`, to stop its workers.

    num_workers: reading processes, at most one a core; 0 reads in this one. prefetch: samples each worker reads ahead.
    rank, world: of `world` processes this one gets the samples rank, rank + world, ... of the order that one process
    would get; all must take equally many before the state is saved.
    prepare: done to every sample where it is read. device: where samples are handed out; a GPU fetches the next one
    from pinned memory beside its work, if `read_ahead` is called once that work is queued.
    An unreadable sample raises ValueError with the dataset's own one-line message. Workers that died or hang make an
    OSError, at the latest when the context manager is left.
    """

    def __init__(
        self,
        dataset: CaptureDataset,
        sampler: EndlessSampler,
        num_workers: int = 0,
        prefetch: int = 2,
        prepare: Callable[[Sample], Sample] | None = None,
        device: torch.device | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        if num_workers < 0 or prefetch < 1:
            raise ValueError(f"num_workers must be >= 0 and prefetch >= 1, got {num_workers} and {prefetch}")
        self._dataset = dataset
        self._handed_out = sampler  # advances when a sample is handed out, not when it is read
        self._rank, self._world = rank, world
        self._num_workers = min(num_workers, available_cores())  # more would only fight
        self._prefetch = prefetch if num_workers else None
        self._prepare = prepare
        self._device = device if device is not None and device.type == "cuda" else None
        self._copies = torch.cuda.Stream(device) if self._device is not None else None
        self._reading: Iterator[PackedSample | Exception] | None = None
        self._workers = WorkerWatch()
        self._ahead: PackedSample | Exception | None = None  # read, on its way to the device, not handed out

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        self.read_ahead()
        item, self._ahead = self._ahead, None
        if isinstance(item, Exception):
            self.close()
            raise item
        assert item is not None, "what read_ahead has read"
        drawn = list(itertools.islice(self._handed_out, self._world))
        assert (item.frame, item.camera_ids) == drawn[self._rank], "samples arrived out of order"
        if self._copies is not None:
            working = torch.cuda.current_stream(self._device)
            working.wait_stream(self._copies)
            item.record_stream(working)
        return item.unpack()

    def read_ahead(self) -> None:
        """Waits until the next sample is read and sends it to the device, unless that is done."""
        if self._ahead is not None:
            return
        self._start_reading()
        self._ahead = self._next_read()
        if self._device is not None and not isinstance(self._ahead, Exception):
            with torch.cuda.stream(self._copies):
                self._ahead = self._ahead.to(self._device, non_blocking=True)

    def state_dict(self) -> dict[str, int]:
        return self._handed_out.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next sample is the one that would have come after `state` was saved."""
        self.close()
        self._handed_out.load_state_dict(state)

    def close(self) -> None:
        """Stop the workers and forget what they read ahead. The stream can be used again."""
        self._workers.unwatch()
        self._reading = self._ahead = None  # the DataLoader's iterator ends its processes when it goes

    def __enter__(self) -> SampleStream:
        """Starts the workers, unless they run."""
        self._start_reading()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # A reader's death is told by a signal too, which may meet this process anywhere.
        told = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
        problem = self._workers.problem() if told else None
        self.close()
        if problem is not None:
            raise problem from error

    def _next_read(self) -> PackedSample | Exception:
        assert self._reading is not None, "read_ahead has started it"
        try:
            with self._workers.waited_for():
                item = next(self._reading)
                return item.taken() if isinstance(item, HandedOver) else item
        except (RuntimeError, OSError, EOFError):  # whatever the DataLoader was doing with one when it died
            problem = self._workers.problem()
            if problem is None:
                raise
            return problem

    def _start_reading(self) -> None:
        """Unless that is done."""
        if self._reading is not None:
            return
        ahead = copy.copy(self._handed_out)  # of the one that counts
        others = set(multiprocessing.active_children())
        # A worker is given the next task when a sample of its is handed out: at most `prefetch` are on their way.
        sender = Sender(self._prefetch + 1, memory_has_a_name()) if self._prefetch is not None else None
        self._reading = iter(
            DataLoader(
                _ReadOrExplain(self._dataset, self._prepare, sender),
                sampler=itertools.islice(ahead, self._rank, None, self._world),
                batch_size=None,
                num_workers=self._num_workers,
                multiprocessing_context=WorkerContext() if self._num_workers else None,
                prefetch_factor=self._prefetch,
                pin_memory=self._device is not None,
                collate_fn=_as_is,
                worker_init_fn=_prepare_worker,
            )
        )
        self._workers = WorkerWatch(set(multiprocessing.active_children()) - others)


class _ReadOrExplain(Dataset):
    """Returns an error instead of raising it: a DataLoader would wrap it into a page of traceback."""

    def __init__(
        self,
        dataset: CaptureDataset,
        prepare: Callable[[Sample], Sample] | None,
        sender: Sender | None,
    ):
        """sender: where other processes read."""
        self._dataset, self._prepare, self._sender = dataset, prepare, sender

    def __getitem__(self, draw: Draw) -> PackedSample | HandedOver | Exception:
        try:
            sample = self._dataset.sample(*draw)
            packed = PackedSample.of(sample if self._prepare is None else self._prepare(sample))
            return packed if self._sender is None else self._sender.send(packed)
        except (ValueError, OSError) as error:
            return ValueError(str(error))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return OutOfMemory(
                f"out of memory: frame {draw[0]} does not fit; lower num_workers or image_scaling"
            )


def _as_is(item):
    return item


def _prepare_worker(worker: int) -> None:
    """Workers are the parallelism: threads inside them would fight for the cores.

    What asks a whole job to stop is the main process's to answer, and it needs its workers for that. Told to end, they
    go on for a while and then end by themselves; a killed main process they notice within seconds.
    """
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in LEFT_TO_MAIN:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE_SECONDS))
    main, say, say_of_thread = os.getppid(), sys.excepthook, threading.excepthook
    # Whose main process is gone finds its connections broken, which is no news.
    sys.excepthook = lambda *error: say(*error) if os.getppid() == main else None
    threading.excepthook = lambda error: say_of_thread(error) if os.getppid() == main else None
