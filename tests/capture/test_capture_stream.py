"""The endless sampler, packed samples and the stream of samples: order, resuming, errors, clean end."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from small_capture import FRAMES, image_path

from mmlphuman.capture import loader, worker_watch
from mmlphuman.capture.crop import crop_to_person
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.loader import LEFT_TO_MAIN, PackedSample, SampleStream
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.capture.sampler import EndlessSampler
from mmlphuman.types import MovableToDevice

PAIRS = [(frame, camera) for frame in (3, 5, 8, 9) for camera in (0, 2, 4, 6, 7) if (frame, camera) != (5, 2)]


def draws(sampler, count):
    return list(itertools.islice(sampler, count))


def test_every_pair_once_an_epoch():
    sampler = EndlessSampler(PAIRS, views_per_pose=1, seed=1)
    epochs = [draws(sampler, len(PAIRS)) for _ in range(3)]
    for epoch in epochs:
        assert sorted((frame, camera) for frame, (camera,) in epoch) == sorted(PAIRS)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("views", [2, 3, 4])
def test_views_are_distinct_cameras_of_one_frame_and_none_is_forgotten(views):
    sampler = EndlessSampler(PAIRS, views, seed=1)
    epoch = draws(sampler, sampler.state_dict()["draws_per_epoch"])
    seen = set()
    for frame, cameras in epoch:
        assert len(set(cameras)) == views
        assert all((frame, camera) in PAIRS for camera in cameras)
        seen |= {(frame, camera) for camera in cameras}
    assert seen == set(PAIRS)


def test_seed_decides_the_order():
    assert draws(EndlessSampler(PAIRS, 2, seed=4), 30) == draws(EndlessSampler(PAIRS, 2, seed=4), 30)
    assert draws(EndlessSampler(PAIRS, 2, seed=4), 30) != draws(EndlessSampler(PAIRS, 2, seed=5), 30)


@pytest.mark.parametrize("consumed", [0, 1, len(PAIRS) - 1, len(PAIRS), 2 * len(PAIRS) + 3])
def test_sampler_resumes_exactly(consumed):
    sampler = EndlessSampler(PAIRS, 1, seed=4)
    draws(sampler, consumed)
    state = sampler.state_dict()
    resumed = EndlessSampler(PAIRS, 1, seed=99)
    resumed.load_state_dict(state)
    assert draws(resumed, 50) == draws(sampler, 50)


def test_sampler_errors():
    with pytest.raises(ValueError, match="frame 5 has images of 4 of the cameras, views_per_pose is 5"):
        EndlessSampler(PAIRS, 5, seed=0)
    with pytest.raises(ValueError, match="views_per_pose must be at least 1"):
        EndlessSampler(PAIRS, 0, seed=0)
    with pytest.raises(ValueError, match="no .* pair"):
        EndlessSampler([], 1, seed=0)
    with pytest.raises(ValueError, match="resume with the same capture"):
        EndlessSampler(PAIRS, 1, seed=0).load_state_dict(EndlessSampler(PAIRS, 2, seed=0).state_dict())


def stream_of(root, views=1, num_workers=0, seed=3, **options) -> SampleStream:
    layout = open_capture(root)
    poses = read_smpl_params(layout.pose_path, face=True)
    dataset = CaptureDataset(layout, poses, range(FRAMES), (0, 1, 2))
    return SampleStream(dataset, EndlessSampler(dataset.pairs, views, seed), num_workers, **options)


def take(stream, count):
    return [next(stream) for _ in range(count)]


def assert_same_samples(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.name() == b.name()
        assert torch.equal(a.images, b.images) and torch.equal(a.edges, b.edges)
        assert torch.equal(a.pose.joints, b.pose.joints)
        assert torch.equal(a.pose.expression, b.pose.expression) and a.pose.expression.any()


def test_order_does_not_depend_on_workers(small_capture):
    with stream_of(small_capture) as alone, stream_of(small_capture, num_workers=2, prefetch=3) as helped:
        assert_same_samples(take(alone, 25), take(helped, 25))


@pytest.mark.parametrize("workers", [(2, 0), (0, 2), (2, 1)])
def test_read_ahead_does_not_count_when_resuming(small_capture, workers):
    before, after = workers
    with stream_of(small_capture, views=2, num_workers=before, prefetch=4) as stream:
        take(stream, 8)
        state = stream.state_dict()
        expected = take(stream, 9)
    with stream_of(small_capture, views=2, num_workers=after, seed=77) as resumed:
        take(resumed, 2)  # a stream that has begun can be set back, too
        resumed.load_state_dict(state)
        assert_same_samples(take(resumed, 9), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_processes_deal_out_the_order_of_one_and_may_change_in_number(small_capture, workers):
    """Twelve samples by one, then twelve by each number of processes, begun at the state of any of the two before."""
    with stream_of(small_capture) as alone:
        expected = take(alone, 24)
    streams = [stream_of(small_capture, num_workers=workers, rank=rank, world=2) for rank in range(2)]
    parts = [take(stream, 6) for stream in streams]
    assert_same_samples([sample for both in zip(*parts, strict=True) for sample in both], expected[:12])
    states = [stream.state_dict() for stream in streams]
    assert states[0] == states[1]
    for world in (1, 2, 3):
        parts = []
        for rank in range(world):
            with stream_of(small_capture, num_workers=workers, rank=rank, world=world) as stream:
                stream.load_state_dict(states[0])
                parts.append(take(stream, 12 // world))
        assert_same_samples([sample for each in zip(*parts, strict=True) for sample in each], expected[12:])
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_error_in_a_worker_arrives_as_its_own_line(small_capture, num_workers):
    stream = stream_of(small_capture, num_workers=num_workers)
    image_path(small_capture, 1, 2).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="^frame 2, camera 1: .*not a readable image") as caught:
        take(stream, 3 * FRAMES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("meanwhile", ["waits", "works"])
def test_a_reader_that_dies_is_one_clear_line(small_capture, meanwhile):
    died = pytest.raises(OSError, match=r"has died \(signal 9\).*lower num_workers")
    with died as caught, stream_of(small_capture, num_workers=1) as stream:
        take(stream, 2)
        (reader,) = multiprocessing.active_children()
        os.kill(reader.pid, signal.SIGKILL)
        if meanwhile == "waits":
            take(stream, 3 * FRAMES)
        time.sleep(5)  # interrupted
    assert "\n" not in str(caught.value)


def test_a_reader_that_dies_leaves_nothing_locked(small_capture):
    """A DataLoader asks its event after that. The lock of multiprocessing's would be held most of the time here."""

    def ask_for_ever(flag) -> None:
        while not flag.is_set():
            pass

    context = worker_watch.WorkerContext()
    flag = context.Event()
    for _ in range(3):
        killed = context.Process(target=ask_for_ever, args=(flag,))
        killed.start()
        time.sleep(0.05)
        killed.kill()
        killed.join()
        asking = threading.Thread(target=flag.is_set, daemon=True)
        asking.start()
        asking.join(5)
        assert not asking.is_alive()
    told = context.Process(target=ask_for_ever, args=(flag,))
    told.start()
    flag.set()
    told.join(5)
    assert told.exitcode == 0
    with stream_of(small_capture, num_workers=1) as stream:
        assert isinstance(stream._reading._workers_done_event, worker_watch.Flag)


def test_readers_that_hang_are_given_up_and_killed(small_capture, monkeypatch):
    monkeypatch.setattr(worker_watch, "SAMPLE_SECONDS", 30)
    with stream_of(small_capture, num_workers=2) as stream:
        expected = stream_of(small_capture)
        assert_same_samples(
            take(stream, 2), take(expected, 2)
        )  # a busy machine may take its time to start them
        monkeypatch.setattr(worker_watch, "SAMPLE_SECONDS", 1)
        readers = multiprocessing.active_children()
        for reader in readers:
            os.kill(reader.pid, signal.SIGSTOP)  # hears nothing but SIGKILL now
        with pytest.raises(OSError, match="^no sample came within 1 s: .*hang; .*--resume$"):
            for _ in range(3 * FRAMES):
                assert_same_samples([next(stream)], take(expected, 1))
        for reader in readers:
            # PyTorch tells of their death once more, by a signal that may come late on a busy machine.
            with suppress(RuntimeError):
                reader.join(5)
            reader.join(5)
            assert reader.exitcode == -signal.SIGKILL
        monkeypatch.setattr(worker_watch, "SAMPLE_SECONDS", 30)
        assert_same_samples(take(stream, 3), take(expected, 3))  # nothing is lost with new readers


def test_samples_do_not_go_through_dev_shm(small_capture, monkeypatch):
    """Which in a container holds 64 MB, of the host's memory however much."""

    def too_small(*_):
        raise RuntimeError("unable to write to /dev/shm")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", too_small)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", too_small)
    monkeypatch.setattr(worker_watch, "SAMPLE_SECONDS", 30)
    with stream_of(small_capture, num_workers=2) as stream:
        assert_same_samples(take(stream, 9), take(stream_of(small_capture), 9))


def test_samples_come_where_memory_has_no_name_too(small_capture, monkeypatch):
    monkeypatch.setattr(loader, "memory_has_a_name", lambda: False)
    with stream_of(small_capture, num_workers=2) as stream:
        assert_same_samples(take(stream, 9), take(stream_of(small_capture), 9))


@pytest.mark.skipif(not loader.memory_has_a_name(), reason="this system does not open memory files by /proc")
def test_a_sender_keeps_what_may_not_have_arrived_and_no_more(small_capture):
    (sample,) = take(stream_of(small_capture), 1)
    packed, sender = loader.PackedSample.of(sample), loader.Sender(keep=2, by_name=True)
    sent = [sender.send(packed) for _ in range(5)]
    for each in sent[-2:]:
        assert_same_samples([each.taken().unpack()], [sample])
    assert len({each.memory for each in sent}) == 3, "two are kept while a third is written"


def test_a_sample_that_cannot_be_handed_over_is_one_line(small_capture, monkeypatch):
    def no_memory(*_):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "memfd_create", no_memory)
    monkeypatch.setattr(worker_watch, "SAMPLE_SECONDS", 30)
    stream = stream_of(small_capture, num_workers=1)
    with pytest.raises(
        ValueError, match=r"^frame \d: a read sample cannot be handed over \(Cannot allocate memory"
    ):
        next(stream)


def test_close_ends_the_workers(small_capture):
    stream = stream_of(small_capture, num_workers=2)
    take(stream, 2)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    deadline = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_signals_to_the_whole_job_leave_the_workers_at_work(small_capture):
    with stream_of(small_capture, num_workers=1) as stream:
        take(stream, 2)  # it has begun, and listens as a worker should
        (worker,) = multiprocessing.active_children()
        for number in (*LEFT_TO_MAIN, signal.SIGTERM):
            os.kill(worker.pid, number)
        take(stream, 3 * FRAMES)
        assert worker.is_alive()
    worker.join(5)
    assert worker.exitcode == 0


def test_silly_worker_counts(small_capture):
    with pytest.raises(ValueError, match="num_workers must be >= 0"):
        stream_of(small_capture, num_workers=-1)


def assert_same(one, other):
    for name, value in vars(one).items():
        twin = getattr(other, name)
        if isinstance(value, torch.Tensor):
            assert value.dtype == twin.dtype and torch.equal(value, twin), name
        elif isinstance(value, MovableToDevice):
            assert_same(value, twin)
        else:
            assert value == twin, name


def test_unpacking_gives_the_sample_back_without_copies(tiny_capture):
    layout = open_capture(tiny_capture)
    dataset = CaptureDataset(layout, read_smpl_params(layout.pose_path), range(2), (0, 1, 2))
    for sample in (dataset.sample(1, (2,)), crop_to_person(dataset.sample(0, (1, 0)))):
        rotated = replace(sample, pose=replace(sample.pose, rotation=torch.rand(3, 3)))
        packed = PackedSample.of(rotated)
        unpacked = packed.unpack()
        assert_same(rotated, unpacked)
        storage = packed.buffer.untyped_storage().data_ptr()
        assert unpacked.masks.untyped_storage().data_ptr() == storage
        assert unpacked.pose.joints.untyped_storage().data_ptr() == storage
