"""Peak memory of multi-scale evaluation, the network included, against that of its largest scale
alone.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

MODELS = {
    "full": {"backbone_weights": "none"},
    "lite": {
        "backbone": "tf_efficientnet_lite0",
        "backbone_weights": "none",
        "output_stride": 16,
        "atrous_rates": [2, 3, 6, 9, 12],
        "reduce_channels": 128,
        "bottleneck_channels": 64,
        "growth_channels": 32,
        "head_channels": 64,
    },
}

# Memory of one prediction, in a process of its own: MiB above what it held before, and the seconds
# it took.
PREDICT = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
from cyclenet.environment import settle_memory
settle_memory()
import torch
from cyclenet.config.model import ModelConfig
from cyclenet.config.schema import ProtocolConfig
from cyclenet.scoring.inference import predict
from cyclenet.models.cyclenet import build_model
torch.manual_seed(0)
model, scales = json.loads(sys.argv[2]), json.loads(sys.argv[3])
net = build_model(ModelConfig(**model), 19).eval()
image = torch.randint(0, 256, (1, 3, 1024, 2048), dtype=torch.uint8)
before = int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 2**20
start = time.time()
predict(lambda view: net(view)[0], image, ProtocolConfig(scales=scales), net.grid)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([peak - before, time.time() - start]))
"""


def paper_ms_peak(name: str) -> dict[str, Any]:
    """Peak memory of `paper_ms` at 1024 x 2048 against that of its largest scale alone."""
    from cyclenet.config.restore import load_protocol

    model, rounds = MODELS[name], 1 if name == "full" else 3
    scales = list(load_protocol("paper_ms").scales)
    peaks: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(rounds):
        for who, chosen in (("ours", scales), ("peer", [max(scales)])):
            command = [
                sys.executable,
                "-c",
                PREDICT,
                str(HERE.parent / "src"),
                json.dumps(model),
                json.dumps(chosen),
            ]
            peak, seconds = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout
            )
            print(f"  scales {chosen}: {peak:.0f} MiB, {seconds:.0f} s", flush=True)
            peaks[who].append(peak)
    ours, peer = statistics.median(peaks["ours"]), statistics.median(peaks["peer"])
    ratios = [b / a for a, b in zip(*peaks.values(), strict=True)]
    return {
        "ours": round(ours),
        "peer": round(peer),
        "unit": "MiB",
        "ratio": round(peer / ours, 3),
        "target": 0.625,  # Under 1.6 times.
        "peer_name": f"scale {max(scales)} alone",
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }
