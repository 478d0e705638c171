"""Run `cyclenet.commands.export`; ``python src/export.py --help`` explains it."""

from cyclenet.commands.export import main

if __name__ == "__main__":
    main()
