"""A packed sample is the same sample, in one piece."""

from dataclasses import replace

import torch

from mmlphuman.capture.crop import crop_to_person
from mmlphuman.capture.dataset import CaptureDataset
from mmlphuman.capture.formats import open_capture
from mmlphuman.capture.packing import PackedSample
from mmlphuman.capture.poses import read_smpl_params
from mmlphuman.types import MovableToDevice


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
