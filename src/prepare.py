"""Run `cyclenet.commands.prepare`; ``python src/prepare.py --help`` explains it."""

from cyclenet.commands.prepare import main

if __name__ == "__main__":
    main()
