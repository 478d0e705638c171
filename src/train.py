"""See `cyclenet.commands.train`."""

from cyclenet.commands.train import main

if __name__ == "__main__":
    main()
