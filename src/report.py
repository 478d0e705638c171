"""Run `cyclenet.commands.report`; ``python src/report.py --help`` explains it."""

from cyclenet.commands.report import main

if __name__ == "__main__":
    main()
