"""Run `cyclenet.commands.explore`; ``python src/explore.py --help`` explains it."""

from cyclenet.commands.explore import main

if __name__ == "__main__":
    main()
