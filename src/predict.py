"""Run `cyclenet.commands.predict`; ``python src/predict.py --help`` explains it."""

from cyclenet.commands.predict import main

if __name__ == "__main__":
    main()
