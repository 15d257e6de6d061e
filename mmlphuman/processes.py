"""Several processes (ranks) that work on one run, one GPU or share of the CPU each, on one host or several.

`torchrun --nproc_per_node=N COMMAND` starts them and tells each its place in environment variables. Without torchrun
there is one rank and everything here does nothing. Rank 0 alone writes, prints, tests and serves viewers.

Data path: gradients of every rank, whole (`sum_all`) or in short (`gather_rows`) -> equal on every rank -> optimisers.

Numbers on a GPU go through NCCL, what the processes tell each other on the CPU through gloo, whose connections break
at once when a process dies: whoever waits for it then gets LostRankError instead of waiting for the timeout. Whoever
waits for a GPU does not, and is ended by the LostRankWatch.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from mmlphuman.command import ErrorOfOneProcess, choose_device, leave_at_once
from mmlphuman.memory_layout import in_memory_order

# The longest that one rank may keep the others waiting: rank 0 builds the scene, tests and writes checkpoints while
# they do. The death of a process is noticed by its connections and not by this; that of a whole host may be.
TIMEOUT = timedelta(minutes=10)

LOST = "another process of this run has ended or does not answer; if it was killed, start again with --resume"
# For the main thread of each: rank 0 may be writing a checkpoint, which takes seconds on a local disk (one that takes
# longer is lost, the one before it is not); and one that notices the loss by itself, or has failed at the same time by
# itself, ends in better order and says it better.
GRACE_SECONDS = 10.0
MEETING = timedelta(minutes=1)  # for the ring to be made: all are there already
WHOLE_RUN = timedelta(days=365)  # no run is longer

_OVER, _LOST = 0, 1  # the words


class ErrorOfAll(ValueError):
    """Raised on every rank together, so that one of them says it."""


class LostRankError(ErrorOfAll):
    """Another process of the run is gone, or does not answer."""


def started_processes() -> int:
    """How many torchrun has started; 1 without it."""
    return _number_in_environment("WORLD_SIZE", "1")


def _number_in_environment(name: str, otherwise: str = "") -> int:
    value = os.environ.get(name, otherwise)
    if not value.isdecimal():
        raise ValueError(
            f"the environment variable {name} is {value or 'not set'!r}, which torchrun sets to a number together with "
            "RANK, LOCAL_RANK and WORLD_SIZE; start with torchrun, or unset WORLD_SIZE"
        )
    return int(value)


@dataclass(frozen=True)
class Ranks:
    """This process among all of them; a context manager, whose end is `close`."""

    device: torch.device
    rank: int = 0
    world: int = 1
    local_rank: int = 0  # on its host
    watch: LostRankWatch | None = None

    @classmethod
    def from_environment(cls, device: str = "auto", timeout: timedelta = TIMEOUT) -> Ranks:
        """Joins the others that torchrun started. device: the setting; `auto` and `cuda` give each rank its own GPU.

        Waits until all have come. ValueError for a device that is not there, or not there for each.
        """
        world, chosen = started_processes(), choose_device(device)
        if world == 1:
            return cls(chosen)
        rank, local_rank = _number_in_environment("RANK"), _number_in_environment("LOCAL_RANK")
        _number_in_environment("MASTER_PORT")
        backend = "gloo"
        if chosen.type == "cuda":
            chosen = _own_gpu(chosen, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
            torch.cuda.set_device(chosen)
            backend = "cpu:gloo,cuda:nccl"
        with _lost_ranks():
            dist.init_process_group(backend, timeout=timeout)
            watch = LostRankWatch(rank, world, says=local_rank == 0)
        return cls(chosen, rank, world, local_rank, watch)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the one that writes and speaks."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """A line on stdout, of rank 0 alone."""
        if self.first:
            print(text, flush=True)

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank; waits until all have asked, some tenths of a millisecond."""
        if self.world == 1:
            return flag
        answer = torch.tensor(int(flag))
        with _lost_ranks():
            dist.all_reduce(answer, dist.ReduceOp.MAX)
        return bool(answer)

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        self.any_rank(False)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Rank 0 goes through the block alone, then all others: they find the files that it has made."""
        if not self.first:
            self.barrier()
        yield
        if self.first:
            self.barrier()

    def gather(self, text: str) -> list[str]:
        """Every rank's text, in order of rank, on every rank; waits for all."""
        return [data.decode() for data in self.gather_bytes(text.encode())]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Every rank's bytes, in order of rank, on every rank; waits for all. As tensors: nothing is unpickled."""
        if self.world == 1:
            return [data]
        counts = [torch.zeros((), dtype=torch.int64) for _ in range(self.world)]
        with _lost_ranks():
            dist.all_gather(counts, torch.tensor(len(data)))
            padded = torch.frombuffer(bytearray(data.ljust(int(max(counts)) + 1)), dtype=torch.uint8)
            everyones = [torch.empty_like(padded) for _ in counts]
            dist.all_gather(everyones, padded)
        return [own[: int(count)].numpy().tobytes() for own, count in zip(everyones, counts, strict=True)]

    def of_first(self, text: str) -> str:
        """Rank 0's text on every rank: what it has decided for all."""
        return self.gather(text if self.first else "")[0]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Rank 0's numbers into everyone's tensors, in place."""
        if self.world == 1:
            return
        with _lost_ranks(), torch.no_grad():
            for tensor in tensors:
                dist.broadcast(in_memory_order(tensor), src=0)  # NCCL takes nothing laid out otherwise

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        """Sums each over all ranks in place; on a GPU its stream waits, not this process."""
        if self.world > 1:
            with _lost_ranks():
                works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            PendingExchange(works).wait()

    def gather_rows(self, rows: Tensor) -> PendingExchange:
        """Every rank's row into everyone's (world, numbers), which has this rank's in its place."""
        if self.world == 1:
            return PendingExchange()
        with _lost_ranks():
            # The form with one output tensor has another name in newer versions of torch.
            return PendingExchange([dist.all_gather(list(rows), rows[self.rank], async_op=True)])

    def close(self) -> None:
        """Leaves the others, who must be done too."""
        if self.world > 1:
            self.barrier()
            if self.watch is not None:
                with _lost_ranks():
                    self.watch.close()
            dist.destroy_process_group()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """After an error nobody is waited for; one that is only this rank's is told by this rank."""
        if error is None:
            self.close()
            return
        if self.watch is not None:
            self.watch.leave_it_to_the_main_thread()
        if self.world > 1 and isinstance(error, ValueError | OSError) and not isinstance(error, ErrorOfAll):
            raise ErrorOfOneProcess(f"process {self.rank} of {self.world}: {error}") from error


class PendingExchange:
    """Numbers on their way between ranks, beside whatever else the GPU is given to do."""

    def __init__(self, works: Sequence[dist.Work | None] = ()):
        """None is PyTorch's word for a rank that takes no part."""
        self.works = works

    def wait(self) -> None:
        """From here on they have arrived; on a GPU its stream waits, not this process."""
        with _lost_ranks():
            for work in self.works:
                if work is not None:
                    work.wait()


class LostRankWatch:
    """Ends this process soon after another one is gone, where the main thread cannot notice.

    A GPU waits within NCCL for a peer that is gone, and the main thread within C for that GPU: no exception reaches it.
    The ranks therefore stand in a ring, by gloo connections of their own, and a thread of each waits for one word from
    the rank before it: that the run is over, or that someone is lost. A connection that breaks says the latter too. The
    thread passes that on at once, so that all know within milliseconds, and each ends its own process when its grace is
    over. A killed process's connections break when its reading workers, which hold them too, have ended: 5 s later.
    Not noticed: a whole host that is gone without breaking its connections; NCCL's and gloo's own timeouts end that.

    One for each rank, made by all together once torch.distributed is there.
    says: whether this process prints the line. If one that would is itself the lost one, nobody on its host does.
    """

    def __init__(self, rank: int, world: int, says: bool):
        self._before, self._next, self._says = (rank - 1) % world, (rank + 1) % world, says
        self._ends_by_itself = threading.Event()
        connections = dist.new_group(backend="gloo", timeout=MEETING)
        assert isinstance(connections, dist.ProcessGroup), "every rank is a member"
        self._connections = connections
        self._thread = threading.Thread(target=self._watch, name="lost ranks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The run is over, for all: to be called by all together, before torch.distributed goes."""
        dist.send(torch.tensor(_OVER), self._next, self._connections)
        self._thread.join()

    def leave_it_to_the_main_thread(self) -> None:
        """It is about to end this process with an error."""
        self._ends_by_itself.set()

    def _watch(self) -> None:
        word = torch.tensor(_LOST)
        with suppress(RuntimeError):  # the connection broke; PyTorch tells of it in pages
            arrival = dist.irecv(word, self._before, self._connections)
            assert arrival is not None, "every rank is a member"
            arrival.wait(WHOLE_RUN)
        if word == _OVER:
            return
        with suppress(RuntimeError):  # the next one may be the lost one
            passed_on = dist.isend(word, self._next, self._connections)  # noqa: F841  kept while it travels
        if self._ends_by_itself.wait(GRACE_SECONDS):
            return
        try:
            if self._says:
                print(f"\nerror: {LOST}", file=sys.stderr, flush=True)  # not in the row of a progress bar
        finally:
            leave_at_once()


def _own_gpu(chosen: torch.device, local_rank: int, on_this_host: int) -> torch.device:
    if chosen.index is not None:
        raise ValueError(f"device: {chosen} is one GPU for {on_this_host} processes; use device: auto")
    count = torch.cuda.device_count()
    if on_this_host > count:
        raise ValueError(
            f"{on_this_host} processes were started on a host with {count} GPU{'s' * (count > 1)}; each needs one: "
            f"torchrun --nproc_per_node={count}"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def _lost_ranks() -> Iterator[None]:
    """PyTorch tells of broken connections and of timeouts in pages."""
    try:
        yield
    except torch.OutOfMemoryError:  # a RuntimeError, too
        raise
    except RuntimeError as error:
        raise LostRankError(LOST) from error
