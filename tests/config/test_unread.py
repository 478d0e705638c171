"""Keys that are given although nothing reads them are named."""

from dataclasses import asdict

import pytest

from cyclenet.config.choices import CONTEXTS, DECODERS
from cyclenet.config.identity import flatten
from cyclenet.config.load import compose_config
from cyclenet.config.schema import TrainConfig
from cyclenet.config.unread import NEEDED, OF_MODULES, describe_unread


def said(*words: str) -> list[str]:
    return describe_unread(compose_config("train", list(words)), words)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["model.context=denseaspp", "model.feedback=2"], ["model.feedback"]),
        (["model.context=cycleaspp", "model.feedback=2"], []),
        (["model.decoder=skip", "model.mask_scale=2"], ["model.mask_scale"]),
        (["optim.schedule=cosine", "optim.poly_power=1"], ["optim.poly_power"]),
        (["optim.poly_power=1"], []),
        (["protocol.stride=32"], ["protocol.stride"]),
        (["protocol.window=64", "protocol.stride=32"], []),
        (["dataset=camvid", "dataset.fold=1", "dataset.val_split=test"], ["dataset.val_split"]),
        (["dataset=camvid", "dataset.val_split=test", "dataset.scenes_val=9"],
         ["dataset.scenes_val"]),
        (["experiment=heads", "optim.lr=1", "dataset.fold=0", "dataset.scale=[1,2]"],
         ["dataset.scale"]),
        (["++loss.aux_weight=1", "model.aux_head=false"], ["loss.aux_weight"]),
    ],
)  # fmt: skip
def test_a_key_that_changes_nothing_is_named(words, keys):
    assert [sentence.split()[0] for sentence in said(*words)] == keys


def test_a_sentence_says_what_would_read_the_key():
    words = ["model.context=aspp", "model.decoder=none", "model.feedback=2", "optim.momentum=0"]
    assert said(*words, "optim.optimizer=adamw") == [
        "model.feedback changes nothing: neither aspp nor decoder none reads it.",
        "optim.momentum changes nothing without optim.optimizer=sgd.",
    ]


def test_the_tables_name_keys_that_exist_and_are_read_somewhere():
    keys = flatten(asdict(TrainConfig()))
    assert not NEEDED.keys() - keys.keys()
    read = {key for each in (*CONTEXTS.values(), *DECODERS.values()) for key in each.keys}
    assert set(OF_MODULES) <= read
    assert not said(*(f"{key}={keys[key]}" for key in ("optim.momentum", "loss.aux_weight")))
