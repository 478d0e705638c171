"""Train ids: the value that is ignored, and colours for classes that have none."""

import numpy as np

IGNORE = 255  # Mask value that no loss and no metric counts.


def color_map(n: int) -> np.ndarray:
    """Return n distinct colours (n, 3) uint8 by PASCAL VOC's rule.

    The bits of the index are spread over the channels.
    """
    index = np.arange(1, n + 1)[:, None]
    bits = (index >> np.arange(9)) & 1
    shift = 7 - np.arange(3)
    channels = [(bits[:, channel::3] << shift).sum(1) for channel in range(3)]
    return np.stack(channels, 1).astype(np.uint8)
