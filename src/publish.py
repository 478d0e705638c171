"""See `cyclenet.commands.publish`."""

from cyclenet.commands.publish import main

if __name__ == "__main__":
    main()
