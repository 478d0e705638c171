"""Write a folder of weights, configuration and model card, and upload it to the Hugging Face hub.

python src/push.py ckpt_path=FILE repo=user/name output=FOLDER [dry_run=false]
"""

from cyclenet.config.commands import PushConfig


def run(cfg: PushConfig) -> None:
    """Push and print what was done."""
    from cyclenet.lab.share import push

    for sentence in push(cfg):
        print(sentence)
