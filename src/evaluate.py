"""Run `cyclenet.commands.evaluate`; ``python src/evaluate.py --help`` explains it."""

from cyclenet.commands.evaluate import main

if __name__ == "__main__":
    main()
