"""See `cyclenet.commands.predict`."""

from cyclenet.commands.predict import main

if __name__ == "__main__":
    main()
