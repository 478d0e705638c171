"""See `cyclenet.commands.evaluate`."""

from cyclenet.commands.evaluate import main

if __name__ == "__main__":
    main()
