"""See `cyclenet.commands.complexity`."""

from cyclenet.commands.complexity import main

if __name__ == "__main__":
    main()
