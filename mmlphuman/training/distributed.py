"""Several processes (ranks) that work on one run, one GPU or share of the CPU each, on one host or several.

`torchrun --nproc_per_node=N COMMAND` starts them and tells each its place in environment variables. Without torchrun
there is one rank and everything here does nothing. Rank 0 alone writes, prints, tests and serves viewers.

Data path: gradients of every rank, whole (`sum_all`) or in short (`gather_rows`) -> equal on every rank -> optimisers.

Numbers on a GPU go through NCCL, what the processes tell each other on the CPU through gloo, whose connections break
at once when a process dies: whoever waits for it then gets LostRankError instead of waiting for the timeout. Whoever
waits for a GPU does not, and is ended by the watch (lost_ranks).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from mmlphuman.command import ErrorOfOneProcess, choose_device
from mmlphuman.memory_layout import in_memory_order
from mmlphuman.training.lost_ranks import LOST, LostRankWatch

# The longest that one rank may keep the others waiting: rank 0 builds the scene, tests and writes checkpoints while
# they do. The death of a process is noticed by its connections and not by this; that of a whole host may be.
TIMEOUT = timedelta(minutes=10)


class ErrorOfAll(ValueError):
    """Raised on every rank together, so that one of them says it."""


class LostRankError(ErrorOfAll):
    """Another process of the run is gone, or does not answer."""


def started_processes() -> int:
    """How many torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
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
            Travelling(works).wait()

    def gather_rows(self, rows: Tensor) -> Travelling:
        """Every rank's row into everyone's (world, numbers), which has this rank's in its place."""
        if self.world == 1:
            return Travelling()
        with _lost_ranks():
            # The form with one output tensor has another name in newer versions of torch.
            return Travelling([dist.all_gather(list(rows), rows[self.rank], async_op=True)])

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


class Travelling:
    """Numbers on their way between ranks, beside whatever else the GPU is given to do."""

    def __init__(self, works: Sequence[dist.Work] = ()):
        self.works = works

    def wait(self) -> None:
        """From here on they have arrived; on a GPU its stream waits, not this process."""
        with _lost_ranks():
            for work in self.works:
                work.wait()


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
