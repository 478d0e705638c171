"""See `cyclenet.commands.report`."""

from cyclenet.commands.report import main

if __name__ == "__main__":
    main()
