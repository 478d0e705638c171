"""Write a trained network as one file for use elsewhere, run it, and compare it with PyTorch.

python src/export.py ckpt_path=FILE output=model.onnx [gives=labels]
python src/export.py ckpt_path=FILE output=model.safetensors format=safetensors
"""

from cyclenet.config.commands import ExportConfig


def run(cfg: ExportConfig) -> None:
    """Export and print what was done."""
    from cyclenet.deploy.export import export

    for sentence in export(cfg):
        print(sentence)
