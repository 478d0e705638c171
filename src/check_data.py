"""Run `cyclenet.commands.check_data`; ``python src/check_data.py --help`` explains it."""

from cyclenet.commands.cli import run_command

if __name__ == "__main__":
    run_command("check_data")
