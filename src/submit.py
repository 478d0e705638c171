"""Run `cyclenet.commands.submit`; ``python src/submit.py --help`` explains it."""

from cyclenet.commands.submit import main

if __name__ == "__main__":
    main()
