"""The tables that ``complexity`` prints."""

from dataclasses import dataclass
from pathlib import Path

from cyclenet.config.commands import ComplexityConfig
from cyclenet.config.model import ModelConfig
from cyclenet.config.naming import arm_label, context_name
from cyclenet.files import read_json
from cyclenet.lab.cost.count import Cost, count_cost, total, training_memory
from cyclenet.lab.cost.gpu_model import TOUCHES, Gpu, count_work, model_run
from cyclenet.lab.paper import TABLE1

BENCH = Path(__file__).resolve().parents[4] / "bench" / "results.json"
"""Measured rows of ``make bench``; an installed package has none."""


def model_table(cfg: ComplexityConfig) -> str:
    """Format the cost of a configuration by part."""
    height, width = map(int, cfg.input.split("x"))
    costs = count_cost(cfg.model, height, width, cfg.num_classes)
    memory = training_memory(cfg.model, height, width, cfg.num_classes)
    stride = cfg.model.output_stride
    lines = [
        f"{arm_label(cfg.model)}, {cfg.model.backbone} at 1/{stride}, input {height} x {width}",
        f"{'':<22}{'parameters, M':>14}{'GFLOPs once':>13}{'executed':>10}"
        f"{'kept for backward, MiB':>24}",
    ]
    for name in dict.fromkeys([*costs, *memory]):
        lines.append(_cost_line(name, costs.get(name), memory.get(name, 0)))
    lines.append(_cost_line("total", total(costs), sum(memory.values())))
    # A context module that reads aux needs it always, so its cost counts.
    aux = " aux is used in training only." if "aux" not in costs else ""
    lines.append(f"Memory is that of one image in float32.{aux}")
    return "\n".join(lines)


def _cost_line(name: str, cost: Cost | None, kept: int) -> str:
    numbers = " " * 37
    if cost:
        millions, once, executed = cost.parameters / 1e6, cost.once / 1e9, cost.executed / 1e9
        numbers = f"{millions:>14.2f}{once:>13.2f}{executed:>10.2f}"
    return f"{name:<22}{numbers}{kept / 2**20:>24.0f}"


def table1() -> str:
    """Format the paper's Table 1 with our counts."""
    lines = [
        "Table 1: ResNet-101 with a deep stem at 1/8, input 769 x 769, 19 classes; multiply-adds "
        "of convolutions",
        f"{'':<30}{'parameters, M':>14}{'GFLOPs executed':>17}{'once':>8}{'paper':>8}"
        f"{'difference':>12}{'paper mIoU':>13}",
    ]
    for row in TABLE1:
        # 769 is a size of the grid with corner alignment (8 x 96 + 1).
        model = ModelConfig(
            context=row.context, atrous_rates=list(row.rates), decoder="none", align_corners=True
        )
        cost = total(count_cost(model, 769, 769))
        once = cost.once / 1e9
        paper = f"{'-':>8}{'-':>12}"
        if row.gflops:
            paper = f"{row.gflops:>8.1f}{100 * (once / row.gflops - 1):>10.2f} %"
        lines.append(
            f"{context_name(row.context, row.rates):<30}{cost.parameters / 1e6:>14.2f}"
            f"{cost.executed / 1e9:>17.1f}{once:>8.1f}{paper}{row.miou:>13.2f}"
        )
    return "\n".join(lines)


def run_table() -> str:
    """Format the cost model of the paper's Cityscapes run, and what loaders it needs."""
    gpu, work = Gpu(), count_work(ModelConfig(), 769, 19)
    warm, cold = _milliseconds("data_warm"), _milliseconds("data_cold")
    lines = [
        f"A MODEL, NOT A MEASUREMENT: {gpu.name}, bf16-mixed, batch 8, 2975 images, 180 epochs, "
        "crop 769",
        f"counted: {work.flops / 1e12:.2f} TFLOP and {work.kept / 1e9:.2f} GB of kept activations "
        f"an image, {work.parameters / 1e6:.1f} M parameters, {work.norms} batch norms",
        f"assumed: {100 * gpu.flops_share:.0f} % of peak FLOP/s, "
        f"{100 * gpu.bandwidth_share:.0f} % of bandwidth, {TOUCHES} touches of an activation, "
        f"{1e6 * gpu.latency:.0f} us a small all-reduce, half of the gradients' hidden",
        f"{'GPUs':>4}{'step, ms':>10}{'hours':>8}{'GPU hours':>11}{'images/s':>10}{'GB a GPU':>10}"
        f"{'loader processes: cached':>26}{'decoding':>10}",
    ]
    for gpus in (1, 4, 8):
        cost = model_run(work, gpu, gpus, images=2975, epochs=180, batch_size=8)
        needed = [f"{cost.images * ms / 1000:.1f}" if ms else "?" for ms in (warm, cold)]
        lines.append(
            f"{gpus:>4}{1000 * cost.step:>10.0f}{cost.hours:>8.1f}{gpus * cost.hours:>11.1f}"
            f"{cost.images:>10.1f}{cost.memory / 1e9:>10.1f}{needed[0]:>26}{needed[1]:>10}"
        )
    if warm and cold:
        lines.append(
            f"A loader process makes a crop in {warm:.1f} ms from the cache, in {cold:.0f} by "
            "decoding (make bench)."
        )
    return "\n".join(lines)


@dataclass
class _BenchRow:
    name: str
    ours: float


def _milliseconds(row: str) -> float | None:
    rows = read_json(list[_BenchRow], BENCH) or []
    return next((each.ours for each in rows if each.name == row), None)
