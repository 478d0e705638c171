"""See `cyclenet.commands.prepare`."""

from cyclenet.commands.prepare import main

if __name__ == "__main__":
    main()
