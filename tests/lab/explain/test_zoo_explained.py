"""Every compared system can be looked into, or says what does not apply to it."""

import numpy as np
import pytest
import torch

from conftest import ROOT
from cyclenet.config.schema import DatasetConfig, TrainConfig
from cyclenet.lab.explain import pixel_figures
from cyclenet.lab.explain.features import Explained
from cyclenet.training.task import SegmentationTask
from made import CLASSES, PALETTE, awake, model_of, small_arm

ARMS = sorted(f"zoo/{path.stem}" for path in ROOT.glob("conf/arm/zoo/*.yaml"))
PIXEL = ("similarity_figure", "grad_cam_figure", "probabilities_figure")


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_a_compared_system_is_explained(arm):
    model = small_arm(arm)
    cfg = TrainConfig(model=model, dataset=DatasetConfig(crop_size=[64, 64]))
    torch.manual_seed(0)
    task = SegmentationTask(cfg, CLASSES, PALETTE)
    task.net.load_state_dict(awake(model, len(CLASSES)).state_dict())
    size = (64, 64) if arm == "zoo/psanet" else (41, 67)  # PSANet is built for its crop.
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    seen = Explained(task, image)
    predicted = model_of(task).labels(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    # What is explained is what the network predicts.
    np.testing.assert_array_equal(seen.labels[-1], predicted)
    fields = seen.receptive_field(20, 30)
    np.testing.assert_allclose(fields.sum((1, 2)), 1, rtol=1e-4)
    assert np.isfinite(seen.similarity(20, 30)).all() and np.isfinite(seen.grad_cam(20, 30)).all()
    for name in PIXEL:
        assert getattr(pixel_figures, name)(seen, 20, 30).axes
    assert pixel_figures.figure4([pixel_figures.pixel_maps(seen, 20, 30)]).axes
    assert pixel_figures.receptive_field_figure(seen, [(20, 30)]).axes
    with pytest.raises(ValueError, match=f"decoder={model.decoder} has no offsets"):
        _ = seen.offsets
