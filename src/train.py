"""Run `cyclenet.commands.train`; ``python src/train.py --help`` explains it."""

from cyclenet.commands.train import main

if __name__ == "__main__":
    main()
