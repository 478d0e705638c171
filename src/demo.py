"""See `cyclenet.commands.demo`."""

from cyclenet.commands.demo import main

if __name__ == "__main__":
    main()
