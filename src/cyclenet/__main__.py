"""``cyclenet COMMAND [KEY=VALUE ...]``: the commands of the installed package.

``cyclenet train ...`` does what ``python src/train.py ...`` does in the repository.
"""

import runpy
import sys

from cyclenet.config.load import SCHEMAS


def main() -> None:
    """Run a command's module as the program, so that its child processes start the same way."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command not in SCHEMAS:
        unknown = f"There is no command {command}.\n" if command[:1] not in ("", "-") else ""
        print(f"{unknown}usage: cyclenet {' | '.join(SCHEMAS)} [KEY=VALUE ...]")
        print("Every command explains its keys with --help.")
        raise SystemExit(0 if command in ("-h", "--help") else 2)
    del sys.argv[1]
    runpy.run_module(f"cyclenet.commands.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
