"""Run `cyclenet.commands.push`; ``python src/push.py --help`` explains it."""

from cyclenet.commands.push import main

if __name__ == "__main__":
    main()
