"""Open a local web page to look into a trained network: click a pixel, see what decided it.

  python src/explore.py ckpt_path=FILE [compare=FILE] [images=FOLDER]

With compare= a slider between the two segmentations appears. Ctrl-C ends the server.
"""

from cyclenet.config.commands import ExploreConfig


def run(cfg: ExploreConfig) -> None:
    """Load the models, and serve the page."""
    from cyclenet.lab.explain.serve import serve

    serve(cfg)
