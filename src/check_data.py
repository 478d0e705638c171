"""See `cyclenet.commands.check_data`."""

from cyclenet.commands.check_data import main

if __name__ == "__main__":
    main()
