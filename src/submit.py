"""See `cyclenet.commands.submit`."""

from cyclenet.commands.submit import main

if __name__ == "__main__":
    main()
