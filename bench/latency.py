"""Time an image of every arm of finished runs, in turns: ``python bench/latency.py
results/camvid``.

Writes ``latency.json`` into the folder, from where the report takes it (``src/report.py``). Weights
are random, for time does not depend on them; an image is one of noise, predicted as evaluation
does, in float32, on all cores. Each turn goes through all arms, does the work of each twice and
times the second.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from cyclenet.commands.cli import user_errors


def main() -> None:
    """Build every arm, time them in turns, write the medians and print them."""
    parser = argparse.ArgumentParser(prog="python bench/latency.py", description=__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder that holds run folders")
    parser.add_argument(
        "--size", default="360x480", help="of the image, height x width (default: 360x480)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns (default: 15)")
    options = parser.parse_args()
    with user_errors():
        import torch

        from cyclenet.config.identity import network_name
        from cyclenet.config.restore import load_protocol
        from cyclenet.deploy.model import Model
        from cyclenet.lab.report.arms import group_arms
        from cyclenet.lab.report.cost import LATENCY
        from cyclenet.lab.report.runs import find_runs
        from cyclenet.models.cyclenet import build_model

        height, width = map(int, options.size.split("x"))
        torch.manual_seed(0)
        image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
        works, networks = {}, {}
        for arm in group_arms(find_runs([options.runs])):
            cfg = replace(arm.cfg, model=replace(arm.cfg.model, backbone_weights="none"))
            classes = list(next(iter(arm.runs[0].evaluations.values())).scores.IoU)
            net = build_model(cfg.model, len(classes), cfg.dataset.crop_size).eval()
            model = Model(net, cfg, classes, [[0, 0, 0]] * len(classes))
            for name in arm.protocols:
                own = name == arm.cfg.protocol.name
                rule = arm.cfg.protocol if own else load_protocol(name)
                works[f"{arm.label}, {name}"] = model, rule
                networks[f"{arm.label}, {name}"] = network_name(asdict(arm.cfg.model))
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(options.rounds + 1):
            for name, (model, protocol) in works.items():
                model.labels(image, protocol)
                began = time.perf_counter()
                model.labels(image, protocol)
                if turn:  # The first is not counted.
                    seconds[name].append(time.perf_counter() - began)
        found = {
            "image": options.size,
            "threads": torch.get_num_threads(),
            "rounds": options.rounds,
            "arms": {
                name: {
                    "s": statistics.median(s),
                    "fastest": min(s),
                    "slowest": max(s),
                    "network": networks[name],
                }
                for name, s in seconds.items()
            },
        }
        (options.runs / LATENCY).write_text(json.dumps(found, indent=1) + "\n")
        for name, values in found["arms"].items():
            middle, low, high = (1000 * values[key] for key in ("s", "fastest", "slowest"))
            print(f"{middle:7.1f} ms ({low:.1f} to {high:.1f})  {name}")


if __name__ == "__main__":
    main()
