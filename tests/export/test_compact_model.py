"""Files of a size that is asked for: the most exact that fit, or the level; one line where none fits."""

from dataclasses import replace

import pytest

from mmlphuman.export import precision, pruning
from mmlphuman.export.compact_model import COARSEST, NEARLY, CompactModel, ModelToCompact
from mmlphuman.export.compact_reader import load_compact
from mmlphuman.export.compact_report import compare
from mmlphuman.export.precision import LEVELS
from tests.builders import save_checkpoint, small_trained


@pytest.fixture(scope="module")
def trained(synthetic_body):
    return small_trained(synthetic_body, 10**6)


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_checkpoint(folder, trained, {}, keep=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "PROBE_SIZE", 96)
        patch.setattr(pruning, "PROBES", 4)
        yield ModelToCompact(folder, trained)


@pytest.fixture(scope="module")
def high(model) -> CompactModel:
    return model.at("high")


def test_a_file_takes_the_size_that_it_may_have(model, high, trained, tmp_path):
    """Each smaller one is less exact, and none gives up more than need be."""
    assert high.coarser == 0
    psnr, given_up = [], []
    for part in (1.0, 0.9, 0.8):
        limit = part * high.megabytes
        made = model.at("high", megabytes=limit)
        assert NEARLY * limit <= made.megabytes <= limit
        path = tmp_path / "a.safetensors"
        path.write_bytes(made.content)
        loaded = load_compact(path)
        psnr.append(compare(trained, loaded, made.selection.order).psnr)
        given_up.append(made.coarser)
    assert psnr == sorted(psnr, reverse=True) and given_up == sorted(given_up) and given_up[1] > 0.5


def test_a_level_that_is_small_enough_stays_as_it_is(model, high):
    assert model.at("high", megabytes=2 * high.megabytes).stored == high.stored


def test_a_level_has_its_own_limit(model, monkeypatch):
    tiny = model.at("tiny")
    assert tiny.coarser == 0 and LEVELS["tiny"].megabytes == 8
    limit = 0.9 * tiny.megabytes
    monkeypatch.setitem(precision.LEVELS, "tiny", replace(LEVELS["tiny"], megabytes=limit))
    assert model.at("tiny").stored == model.at("tiny", megabytes=limit).stored != tiny.stored
    assert model.at("tiny", megabytes=1.0).stored == tiny.stored, "what is asked for goes before it"


def test_what_cannot_be_so_small_is_told(model, high):
    with pytest.raises(
        ValueError, match=r"at level high .* cannot be made smaller than 0\.\d+ MB.*at most 0.001"
    ):
        model.at("high", megabytes=0.001)
    with pytest.raises(ValueError, match="give a smaller --keep, or none"):
        model.at("high", 1.0, 0.001)
    assert LEVELS["high"].coarser(COARSEST).rounding_psnr == LEVELS["high"].rounding_psnr - COARSEST
