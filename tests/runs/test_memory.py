"""A GPU that is too small is told in a sentence, in the result too."""

import lightning as L
import pytest
import torch

from cyclenet.runs.folder import RunFolder
from cyclenet.runs.results import read_result
from cyclenet.runs.train import train_in
from made import short_config


def test_too_little_memory_is_told_with_the_keys_to_lower(tmp_path, monkeypatch):
    def fit(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(L.Trainer, "fit", fit)
    with pytest.raises(ValueError, match=r"2 crops of 64 x 64: lower dataset.batch_size"):
        train_in(RunFolder(tmp_path, short_config(), []))
    result = read_result(tmp_path)
    assert result.status == "failed" and "model.recompute=true" in result.error
