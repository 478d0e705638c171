"""Run `cyclenet.commands.visualize`; ``python src/visualize.py --help`` explains it."""

from cyclenet.commands.visualize import main

if __name__ == "__main__":
    main()
