"""Run `cyclenet.commands.complexity`; ``python src/complexity.py --help`` explains it."""

from cyclenet.commands.complexity import main

if __name__ == "__main__":
    main()
