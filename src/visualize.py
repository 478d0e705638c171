"""See `cyclenet.commands.visualize`."""

from cyclenet.commands.visualize import main

if __name__ == "__main__":
    main()
