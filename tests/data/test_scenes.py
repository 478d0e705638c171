import numpy as np
import pytest

from conftest import ROOT, run
from cyclenet.config.schema import DatasetConfig
from cyclenet.data.images import DataError
from cyclenet.data.open import open_split
from cyclenet.data.scenes.source import draw_scene


def test_a_scene_is_a_function_of_seed_split_and_index():
    image, mask = draw_scene(3, "train", 7, 96, 192)
    draw_scene(3, "train", 8, 96, 192)
    again = draw_scene(3, "train", 7, 96, 192)
    assert np.array_equal(image, again[0]) and np.array_equal(mask, again[1])
    for other in ((4, "train", 7), (3, "val", 7), (3, "train", 8)):
        assert not np.array_equal(mask, draw_scene(*other, 96, 192)[1])


def test_all_classes_occur_and_nothing_else():
    counts = sum(
        np.bincount(draw_scene(0, "train", i)[1].ravel(), minlength=256) for i in range(40)
    )
    assert (counts[:19] > 500).all()
    assert counts[255] > 0 and counts[19:255].sum() == 0


def test_context_tells_classes_apart_that_colour_does_not():
    """Walls have the buildings' materials: their mean colours differ less than the colours within
    each.
    """
    colors = {2: [], 3: []}
    for i in range(30):
        image, mask = draw_scene(0, "train", i)
        for index, found in colors.items():
            if (mask == index).sum() > 200:
                found.append(image[mask == index].mean(0))
    building, wall = (np.array(found) for found in colors.values())
    assert len(wall) > 10
    assert np.abs(building.mean(0) - wall.mean(0)).max() < 1.5 * building.std(0).min()


def test_source_keeps_image_and_mask_together():
    source = open_split(DatasetConfig(scenes_size=[64, 128], scenes_val=5), "val")
    assert len(source) == 5
    # Asked for in any order, each is of its own scene.
    images, masks = (
        [source.image(i) for i in range(5)],
        [source.mask(i) for i in (4, 3, 2, 1, 0)][::-1],
    )
    for i in range(5):
        image, mask = draw_scene(0, "val", i, 64, 128)
        assert np.array_equal(images[i], image) and np.array_equal(masks[i], mask)
    with pytest.raises(DataError, match="splits train and val"):
        open_split(DatasetConfig(), "test")


def test_scenes_are_the_same_in_another_process(tmp_path):
    script = (
        "import sys; from cyclenet.data.scenes.source import draw_scene; "
        "print(draw_scene(0, 'val', 1)[0].astype(int).sum())"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "src", capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == draw_scene(0, "val", 1)[0].astype(int).sum()
    assert "0 bad files" in run(
        "check_data",
        "dataset=scenes",
        "dataset.scenes_train=3",
        "dataset.scenes_val=2",
        cwd=tmp_path,
    )
