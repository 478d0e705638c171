"""Run `cyclenet.commands.check_data`; ``python src/check_data.py --help`` explains it."""

from cyclenet.commands.check_data import main

if __name__ == "__main__":
    main()
