"""``cyclenet COMMAND [KEY=VALUE ...]``: the commands of the installed package.

``cyclenet train ...`` does what ``python src/train.py ...`` does in the repository.
"""

import runpy
import sys

from cyclenet.commands.cli import run_command
from cyclenet.config.load import SCHEMAS


def main() -> None:
    """Run the command that the first word names."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in SCHEMAS:
        unknown = f"There is no command {command}.\n" if command[:1] not in ("", "-") else ""
        print(f"{unknown}usage: cyclenet {' | '.join(SCHEMAS)} [KEY=VALUE ...]")
        print("Every command explains its keys with --help.")
        raise SystemExit(0 if command in ("-h", "--help") else 2)
    del sys.argv[1]
    if command == "train":  # It runs as the program, so its child processes start the same way.
        runpy.run_module("cyclenet.commands.train", run_name="__main__", alter_sys=True)
    else:
        run_command(command)


if __name__ == "__main__":
    main()
