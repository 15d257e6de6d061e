"""Numbers in the order in which they lie, and tensors laid out like others."""

import pytest
import torch

from mmlphuman.memory_layout import in_memory_order, laid_out_like

DENSE = (
    torch.arange(24.0).view(2, 3, 4),
    torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1),
    torch.arange(6.0).view(3, 1, 2).transpose(0, 2),
    torch.tensor(5.0),
)


@pytest.mark.parametrize("tensor", DENSE, ids=lambda tensor: f"{tuple(tensor.stride())}")
def test_what_is_written_in_memory_order_is_in_the_tensor(tensor):
    tensor = tensor.clone()  # keeps the strides
    before, flat = tensor.clone(), in_memory_order(tensor)
    assert flat.is_contiguous() and flat.data_ptr() == tensor.data_ptr() and flat.numel() == tensor.numel()
    flat.mul_(2)
    assert torch.equal(tensor, 2 * before)


def test_a_tensor_with_gaps_has_no_such_view():
    for gaps in (torch.arange(24.0).view(4, 6)[:, ::2], torch.arange(24.0).view(4, 6)[:, :5]):
        with pytest.raises(ValueError, match="gaps"):
            in_memory_order(gaps)


def test_laid_out_like_copies_only_where_strides_differ():
    parameter = torch.zeros(4, 3).t()
    gradient = torch.rand(3, 4)
    moved = laid_out_like(gradient, parameter)
    assert torch.equal(moved, gradient) and moved.stride() == parameter.stride()
    assert laid_out_like(moved, parameter) is moved
