"""See `cyclenet.commands.explore`."""

from cyclenet.commands.explore import main

if __name__ == "__main__":
    main()
