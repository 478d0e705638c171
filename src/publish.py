"""Run `cyclenet.commands.publish`; ``python src/publish.py --help`` explains it."""

from cyclenet.commands.cli import run_command

if __name__ == "__main__":
    run_command("publish")
