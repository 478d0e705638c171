"""The best rate of each network: chosen from a sweep's runs, read back by the next."""

import pytest
from omegaconf.errors import OmegaConfBaseException

from cyclenet.config.identity import network_name
from cyclenet.config.load import compose_config
from cyclenet.lab.report.runs import read_run
from cyclenet.lab.sweeps.choose import write_chosen
from made import make_run, run_config


def test_each_network_gets_its_best(tmp_path):
    """CycleASPP is best at the middle rate, DenseASPP at the last, which is told."""
    accuracies = {"cycleaspp": (0.5, 0.8, 0.6), "denseaspp": (0.5, 0.6, 0.8)}
    runs = []
    for arm, scores in accuracies.items():
        for lr, accuracy in zip((0.02, 0.05, 0.1), scores, strict=True):
            cfg = compose_config("train", [f"arm={arm}", f"optim.lr={lr}"])
            runs.append(read_run(make_run(tmp_path, cfg, accuracy, number=len(runs))))
    path = tmp_path / "chosen.yaml"
    said = write_chosen(runs, "optim.lr", path)
    assert "DenseASPP" in said and "(0.1)" in said and "CycleASPP" not in said
    for arm, best in (("cycleaspp", 0.05), ("denseaspp", 0.1)):
        words = [f"arm={arm}", f"optim.lr=${{chosen:{path}}}"]
        assert compose_config("train", words).optim.lr == best
    # A network that was not in the sweep is refused by name.
    with pytest.raises(OmegaConfBaseException, match="has no number for CycleASPP"):
        compose_config("train", ["arm=cycleaspp_adc", f"optim.lr=${{chosen:{path}}}"])


def test_a_networks_name_changes_with_any_of_its_keys():
    model = vars(run_config().model)
    assert network_name(model) == network_name(model | {"recompute": True, "aux_head": False})
    assert network_name(model) != network_name(model | {"growth_channels": 40})


@pytest.mark.parametrize("lr", [6e-5, 1e-4, 0.123456789])
def test_a_rate_is_read_back_as_it_was(lr, tmp_path):
    cfg = compose_config("train", [f"optim.lr={lr}"])
    path = tmp_path / "chosen.yaml"
    write_chosen([read_run(make_run(tmp_path, cfg))], "optim.lr", path)
    assert compose_config("train", [f"optim.lr=${{chosen:{path}}}"]).optim.lr == lr


def test_values_may_be_tried_one_by_one(tmp_path):
    """A later sweep of one value, or of one network, keeps what earlier ones found."""
    tried = [
        ("cycleaspp", 0.02, 0.8, []),
        ("cycleaspp", 0.01, 0.6, []),
        ("denseaspp", 0.01, 0.7, []),
        ("cycleaspp", 0.02, 0.1, ["trainer.max_steps=9"]),  # Another setting.
    ]
    earlier = []
    for number, (arm, lr, accuracy, other) in enumerate(tried):
        cfg = compose_config("train", [f"arm={arm}", f"optim.lr={lr}", *other])
        earlier.append(read_run(make_run(tmp_path / "runs", cfg, accuracy, number=number)))
    cfg = compose_config("train", ["arm=cycleaspp", "optim.lr=0.005"])
    new = read_run(make_run(tmp_path / "runs", cfg, 0.5, number=9))
    path = tmp_path / "chosen.yaml"
    write_chosen([new], "optim.lr", path, [*earlier, new])
    for arm, best in (("cycleaspp", 0.02), ("denseaspp", 0.01)):
        words = [f"arm={arm}", f"optim.lr=${{chosen:{path}}}"]
        assert compose_config("train", words).optim.lr == best
    # Another seed alone is no comparison with the values of the first.
    cfg = compose_config("train", ["arm=cycleaspp", "optim.lr=0.005", "seed=7"])
    new = read_run(make_run(tmp_path / "runs", cfg, 0.9, number=10))
    write_chosen([new], "optim.lr", path, [*earlier, new])
    assert "no seed and fold has runs of all values" in path.read_text()
    # More seeds of a value, or of all, add to what there was.
    for lr, seed, accuracy in ((0.02, 7, 0.9), (0.01, 7, 0.1)):
        cfg = compose_config("train", ["arm=cycleaspp", f"optim.lr={lr}", f"seed={seed}"])
        more = read_run(make_run(tmp_path / "runs", cfg, accuracy, number=20 + len(earlier)))
        earlier.append(more)
        write_chosen([more], "optim.lr", path, earlier)
        assert "0.02: " in path.read_text() and "0.01: " in path.read_text()
        assert compose_config("train", ["arm=cycleaspp", words[1]]).optim.lr == 0.02
    # A whole sweep needs no earlier value, and takes one only if that has all its seeds.
    new, stray = [], (0.04, 1, 0.99)
    for lr, seed, accuracy in (
        (0.01, 1, 0.5),
        (0.01, 2, 0.5),
        (0.02, 1, 0.6),
        (0.02, 2, 0.6),
        stray,
    ):
        cfg = compose_config("train", ["arm=aspp", f"optim.lr={lr}", f"seed={seed}"])
        new.append(read_run(make_run(tmp_path / "more", cfg, accuracy, number=len(new))))
    write_chosen(new[:4], "optim.lr", path, new)
    assert compose_config("train", ["arm=aspp", f"optim.lr=${{chosen:{path}}}"]).optim.lr == 0.02
    assert "seeds and folds" not in path.read_text()


def test_a_value_is_not_chosen_for_an_easy_seed_that_it_alone_has(tmp_path):
    runs = []
    for seed, lr, accuracy in ((0, 0.01, 0.9), (1, 0.01, 0.5), (0, 0.1, 0.8)):
        cfg = compose_config("train", [f"seed={seed}", f"optim.lr={lr}"])
        runs.append(read_run(make_run(tmp_path, cfg, accuracy, number=len(runs))))
    path = tmp_path / "chosen.yaml"
    write_chosen(runs, "optim.lr", path)
    assert compose_config("train", [f"optim.lr=${{chosen:{path}}}"]).optim.lr == 0.01
    write_chosen(runs[1:], "optim.lr", path)
    assert "no seed and fold has runs of all values" in path.read_text()
