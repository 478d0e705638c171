"""Write a trained network as one file for use elsewhere, run it, and compare it with PyTorch.

python src/export.py ckpt_path=FILE output=model.onnx [gives=labels]
python src/export.py ckpt_path=FILE output=model.safetensors format=safetensors
"""

from cyclenet.commands.cli import run_command
from cyclenet.config.commands import ExportConfig


def main() -> None:
    """Export, and say how the file was checked."""
    run_command("export", __doc__, run)


def run(cfg: ExportConfig) -> None:
    """Export and print what was done."""
    from cyclenet.deploy.export import export

    for sentence in export(cfg):
        print(sentence)


if __name__ == "__main__":
    main()
