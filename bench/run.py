"""The benchmark: ``make bench`` or ``make bench ROWS=adc,data``.

A row is one work done by us and by what a user would take instead. Each side runs in a process of
its own, started as its users start it; the two take turns (A, B, A, B, ...), each of which does the
work twice and times the second; medians are compared. Peak memory is what the work adds to its
process. Results are written to ``bench/results.json``.
"""

import argparse
import functools
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]


@dataclass
class Row:
    """One comparison.

    Attributes:
        peer: what it is compared with.
        side: sets up a side, ours or the peer's, and returns its work (`sides`).
        target: of the peer's figure over ours.
        memory_target: of the peer's peak memory over ours.
        rounds: turns that are counted, after one that is not.
        unit: of the figure: s is the time of the work, another is what the work reports.
        needs: a package or a program without which the row is left out.
    """

    peer: str
    side: Callable[[bool], Callable[[], Any]]
    target: float
    memory_target: float | None = None
    rounds: int = 5
    unit: str = "s"
    needs: str | None = None


def rows() -> dict[str, Row]:
    """Return all comparisons by name."""
    import sides

    plain, references, half = (
        "the straightforward build",
        "torchvision's references",
        functools.partial,
    )
    operator, cat = "torchvision.ops.deform_conv2d (float32)", "concatenate and convolve"
    return {
        "adc_fp32": Row(operator, half(sides.adc, dtype="fp32"), 9, rounds=3),
        "adc_bf16": Row(operator, half(sides.adc, dtype="bf16"), 15, rounds=3),
        "step": Row(plain, sides.step, 2.8, rounds=3),
        "frozen": Row("end to end, same images and stride", sides.frozen, 8, rounds=3),
        "lite_step": Row(
            "segmentation_models_pytorch, the same backbone",
            sides.lite_step,
            1,
            needs="segmentation_models_pytorch",
        ),
        "step_smp": Row(
            "segmentation_models_pytorch",
            sides.step_smp,
            1.2,
            rounds=3,
            needs="segmentation_models_pytorch",
        ),
        "step_mmseg": Row("mmsegmentation", sides.step_mmseg, 1.2, rounds=3, needs="mmseg"),
        "eval_fp32": Row(plain, half(sides.evaluation, dtype="fp32"), 1.3, rounds=3),
        "eval_bf16": Row(
            f"{plain} in float32", half(sides.evaluation, dtype="bf16"), 2.5, rounds=3
        ),
        "eval_ms": Row("a running sum of full-size probabilities", sides.eval_ms, 2.5, 8),
        "onnx_eager": Row(
            "PyTorch as it is",
            half(sides.deployed, compiled=False),
            1,
            rounds=5,
            needs="onnxruntime",
        ),
        "onnx_compiled": Row(
            "torch.compile", half(sides.deployed, compiled=True), 1, rounds=5, needs="onnxruntime"
        ),
        "context_memory": Row(cat, half(sides.context, recompute=False), 1.7, unit="MiB", rounds=1),
        "context_memory_recompute": Row(
            cat, half(sides.context, recompute=True), 4, unit="MiB", rounds=1
        ),
        "loss": Row("F.interpolate, F.cross_entropy", sides.loss, 1.2, 4, rounds=9),
        "data_warm": Row(references, half(sides.data, cache="always"), 25, unit="ms", rounds=7),
        "data_warm_mmseg": Row(
            "mmsegmentation's chain",
            half(sides.data, cache="always", peer="mmseg"),
            15,
            unit="ms",
            rounds=7,
            needs="mmseg",
        ),
        "data_cold": Row(references, half(sides.data, cache="never"), 2, unit="ms", rounds=7),
        "metric": Row("F.interpolate, argmax, torchmetrics", sides.metric, 3, 5, rounds=15),
        "startup": Row("Lightning imported at the top", sides.startup, 5, rounds=4),
        "click": Row(
            "from the image again, and no browser", sides.click, 1, rounds=9, needs="chromium"
        ),
    }


WITH_PRODUCTS = ("adc_fp32", "adc_bf16", "step", "step_smp", "step_mmseg", "eval_fp32", "eval_bf16")
WITH_PRODUCTS += ("frozen",)
"""Rows whose time should be that of matrix products. PyTorch counts too many operations of
depthwise convolutions' gradients."""

WITH_TRAFFIC = ("eval_ms", "loss", "metric")
"""Rows whose time should be that of moving memory."""


class Side:
    """A process that sets up one side of a row and does its work when it is told to."""

    def __init__(self, name: str, ours: bool) -> None:
        words = [sys.executable, __file__, "--side", "ours" if ours else "peer", name]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> dict[str, Any]:
        """Do the work once."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("error: a side of the benchmark ended; what it said is above.")
        return json.loads(answer)

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate()


def serve(name: str, ours: bool) -> None:
    """Be a side: a line on standard input is a turn, its figures a line on standard output."""
    import hashlib

    if ours:  # As our commands do; a peer's users start with what they find.
        from cyclenet.environment import settle_memory

        settle_memory()
    import torch
    from growth import measured

    answers, sys.stdout = sys.stdout, sys.stderr  # Peers print.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    work = rows()[name].side(ours)
    first = True
    for _ in sys.stdin:
        if not first:
            # While the other side worked, a virtual machine may have given this one's free memory
            # away. Training never pauses.
            work()
        extra: dict[str, float] = {}
        if first and ours and name in WITH_PRODUCTS:
            extra = counted(work, name)
        if first and ours and name in WITH_TRAFFIC:
            extra = moved(work)
        result, seconds, peak = measured(work)
        figures: dict[str, Any] = {"s": seconds, "peak": peak, **extra}
        if isinstance(result, dict):
            figures |= result
        elif result is not None and first:
            path = Path(
                f"/tmp/bench-{os.getpid()}-{hashlib.blake2b(name.encode()).hexdigest()[:8]}.pt"
            )
            torch.save(result if isinstance(result, tuple) else (result,), path)
            figures["result"] = str(path)
        result, first = None, False
        print(json.dumps(figures), file=answers, flush=True)


def compare(name: str, row: Row) -> dict[str, Any]:
    """Run a row; return what ``results.json`` holds of it."""
    ours, peer = Side(name, True), Side(name, False)
    first = ours.turn(), peer.turn()
    turns = [(ours.turn(), peer.turn()) for _ in range(row.rounds)]
    ours.end(), peer.end()
    a, b = ([turn[side][row.unit] for turn in turns] for side in (0, 1))
    ratios = [y / x for x, y in zip(a, b, strict=True)]
    memory = [statistics.median(turn[side]["peak"] for turn in turns) for side in (0, 1)]
    result = {
        "name": name,
        **stamp(),
        "ours": _round(statistics.median(a)),
        "peer": _round(statistics.median(b)),
        "unit": row.unit,
        "ratio": _round(statistics.median(b) / statistics.median(a)),
        "target": row.target,
        "peer_name": row.peer,
        "spread": [_round(min(ratios)), _round(max(ratios))],
        "memory_mib": {
            "ours": _round(memory[0]),
            "peer": _round(memory[1]),
            "target": row.memory_target,
        },
    }
    if row.unit == "MiB":
        result["seconds"] = [
            _round(statistics.median(turn[side]["s"] for turn in turns)) for side in (0, 1)
        ]
    if "flops" in first[0]:
        # What of the machine's own matrix products the work reaches, measured in its process.
        achieved = first[0]["flops"] / statistics.median(turn[0]["s"] for turn in turns)
        result["share_of_gemm"] = _round(achieved / first[0]["gemm"])
    if "bytes" in first[0]:
        # What of the machine's own copying: more than 1 where the caches hold what is moved.
        achieved = first[0]["bytes"] / statistics.median(turn[0]["s"] for turn in turns)
        result["share_of_copy"] = _round(achieved / first[0]["copy"])
    if "decoding_ms" in first[0]:
        decoding = statistics.median(turn[0]["decoding_ms"] for turn in turns)
        result["share_of_decoding"] = _round(decoding / statistics.median(a))
    if "result" in first[0]:
        result["agreement"] = _agreement(first[0]["result"], first[1]["result"])
    return result


@functools.cache
def stamp() -> dict[str, str]:
    """Say when and on what a row was measured."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    processor = names[0] if names else "unknown processor"
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    processor += " with bfloat16" if "avx512_bf16" in flags else " without bfloat16"
    cores = len(os.sched_getaffinity(0))
    versions = f"PyTorch {torch.__version__}, Python {sys.version.split()[0]}"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": f"{cores} cores of {processor}",
        "versions": versions,
    }


def gemm_rate(low: bool) -> float:
    """Return the FLOP/s of this process's products of 2048 x 2048 matrices, the best of three.

    On AMD's processors MKL's product in float32 is half as fast as the same one as a convolution.
    """
    import torch
    import torch.nn.functional as F

    a = torch.randn(2048, 2048, dtype=torch.bfloat16 if low else torch.float32)
    columns, filters = a.view(1, 32, 64, 2048).permute(0, 3, 1, 2), a.view(2048, 2048, 1, 1)
    best = float("inf")
    for product in (lambda: a @ a, lambda: F.conv2d(columns, filters)):
        for _ in range(4):
            started = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def counted(work: Callable[[], Any], name: str) -> dict[str, float]:
    """Do a row's work once and count its operations; none are told where there are no products."""
    from cyclenet.lab.cost.count import flop_counter
    from cyclenet.training.trainer import choose_precision

    counter = flop_counter()
    with counter:
        work()
    flops = counter.get_total_flops()
    chosen = choose_precision("auto", on_gpu=False) == "bf16-mixed"
    low = {"fp32": False, "bf16": True, "frozen": False}.get(name.rpartition("_")[2], chosen)
    return {"flops": flops, "gemm": gemm_rate(low)} if flops else {}


def copy_rate() -> float:
    """Return the bytes a second that copying 256 MiB reads and writes, the best of three."""
    import torch

    a = torch.zeros(1 << 28, dtype=torch.uint8)
    b = torch.zeros_like(a)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        b.copy_(a)
        best = min(best, time.perf_counter() - started)
    return 2 * a.numel() / best


def moved(work: Callable[[], Any]) -> dict[str, float]:
    """Do a work once and count the bytes that its operations read and write; views cost none."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Traffic(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
            result = function(*args, **(kwargs or {}))
            if not function.is_view:
                used = tree_leaves((args, kwargs, result))
                self.total += sum(x.numel() * x.itemsize for x in used if isinstance(x, Tensor))
            return result

    with Traffic() as traffic:
        work()
    return {"bytes": traffic.total, "copy": copy_rate()}


def _agreement(ours: str, peer: str) -> str:
    import torch

    pairs = list(zip(*(torch.load(path, weights_only=True) for path in (ours, peer)), strict=True))
    for path in (ours, peer):
        Path(path).unlink()
    a, b = pairs[0]
    if a.dtype == torch.uint8:
        return f"{100 * (a == b).double().mean():.4f} % of labels equal"
    if not a.dtype.is_floating_point:
        return (
            "equal" if torch.equal(a, b) else f"{int((a != b).sum())} of {a.numel()} counts differ"
        )
    worst = max(float((x.float() - y).abs().max() / y.abs().max()) for x, y in pairs)
    return f"largest difference {worst:.1e} of the largest value"


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def table(results: list[dict[str, Any]]) -> str:
    """Format results for a terminal."""
    lines = [
        f"{'name':<26}{'ours':>9}{'peer':>9} {'unit':<9}{'ratio':>7} {'spread':<15}{'target':>7}  "
        f"{'peak MiB':<22}peer"
    ]
    for r in results:
        memory = r.get("memory_mib") or {}
        peak = f"{memory['ours']:.0f} / {memory['peer']:.0f}" if memory else ""
        if memory.get("target"):
            peak += f" = {memory['peer'] / max(memory['ours'], 1):.1f} ({memory['target']})"
        spread = f"{r['spread'][0]:g}..{r['spread'][1]:g}"
        lines.append(
            f"{r['name']:<26}{r['ours']:>9g}{r['peer']:>9g} {r['unit']:<9}{r['ratio']:>7.3g} "
            f"{spread:<15}{r['target']:>7g}  {peak:<22}{r['peer_name']}"
        )
        if "agreement" in r:
            lines.append(f"{'':<26}{r['agreement']}")
        if "share_of_gemm" in r:
            lines.append(f"{'':<26}{r['share_of_gemm']:.0%} of the machine's matrix products")
        if "share_of_decoding" in r:
            lines.append(f"{'':<26}{r['share_of_decoding']:.0%} of ours is decoding the PNGs")
        if "share_of_copy" in r:
            lines.append(f"{'':<26}{r['share_of_copy']:.0%} of the machine's copying")
        if "seconds" in r:
            lines.append(
                f"{'':<26}forward + backward {r['seconds'][0]:g} s, peer {r['seconds'][1]:g} s"
            )
    return "\n".join(lines)


def main() -> None:
    """Run the rows that were asked for, and keep the results of the others."""
    from exactness import exactness
    from growth import growth
    from peaks import paper_ms_peak
    from zoo import zoo

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", default="", help="comma-separated names, or what they begin with; default: all"
    )
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(arguments.name, arguments.side == "ours")
        return
    comparisons = rows()
    others = {
        "growth": growth,
        "exactness": exactness,
        "zoo": zoo,
        "paper_ms_peak_lite": functools.partial(paper_ms_peak, "lite"),
        "paper_ms_peak": functools.partial(paper_ms_peak, "full"),  # 8 minutes: only by its name.
    }
    known = [*comparisons, *others]
    wanted = [word for word in arguments.rows.split(",") if word]
    for word in wanted:
        if not any(name.startswith(word) for name in known):
            raise SystemExit(f"error: there is no row {word}; there are {', '.join(known)}.")
    names = (
        [name for name in known if any(name.startswith(word) for word in wanted)]
        if wanted
        else known[:-1]
    )
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    results = {row["name"]: row for row in kept}
    done = []
    for name in names:
        row, started = comparisons.get(name), time.time()
        if (
            row
            and row.needs
            and importlib.util.find_spec(row.needs) is None
            and shutil.which(row.needs) is None
        ):
            print(f"{name}: left out, {row.needs} is not installed.", flush=True)
            results.pop(name, None)
            continue
        results[name] = compare(name, row) if row else {"name": name, **stamp(), **others[name]()}
        done.append(results[name])
        print(f"{name}: {time.time() - started:.0f} s", flush=True)
        ordered = [results[known_name] for known_name in known if known_name in results]
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    print(table(done))


if __name__ == "__main__":
    main()
