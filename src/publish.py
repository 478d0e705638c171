"""Run `cyclenet.commands.publish`; ``python src/publish.py --help`` explains it."""

from cyclenet.commands.publish import main

if __name__ == "__main__":
    main()
