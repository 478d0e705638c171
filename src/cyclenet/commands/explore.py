"""Open a local web page to look into a trained network: click a pixel, see what decided it.

  python src/explore.py ckpt_path=FILE [compare=FILE] [images=FOLDER]

With compare= a slider between the two segmentations appears. Ctrl-C ends the server.
"""

from cyclenet.commands.cli import run_command
from cyclenet.config.commands import ExploreConfig


def main() -> None:
    """Serve the page until the user stops it."""
    run_command("explore", __doc__, run)


def run(cfg: ExploreConfig) -> None:
    """Load the models, and serve the page."""
    from cyclenet.lab.explain.serve import serve

    serve(cfg)


if __name__ == "__main__":
    main()
