"""Count a model's parameters, multiply-adds and activation memory, by component."""

import json
import sys
from pathlib import Path

from cyclenet.commands.cli import compose_config, parse_overrides, user_errors
from cyclenet.config import ComplexityConfig, ModelConfig

USAGE = """
python src/complexity.py model=cyclenet|cyclenet_lite [model.KEY=VALUE ...] [input=769x769] [num_classes=19]
python src/complexity.py table1      the paper's Table 1: its GFLOPs beside ours
python src/complexity.py run         what the paper's Cityscapes run would cost on 1, 4 and 8 GPUs: a model, no measurement

Counted with PyTorch's own counter on the meta device, so nothing is computed. GFLOPs are multiply-adds of convolutions:
  once       each module at its first use only, as the paper counted: a filter that feedback uses again is free
  executed   what is really done
"""


def main() -> None:
    """Print the table of one configuration, or Table 1."""
    words = sys.argv[1:]
    if words == ["table1"]:
        print(table1())
        return
    if words == ["run"]:
        print(run_table())
        return
    overrides = parse_overrides(USAGE)
    with user_errors():
        print(table(compose_config("complexity", ComplexityConfig, overrides)))


def table(cfg: ComplexityConfig) -> str:
    """Format the cost of a configuration by component."""
    from cyclenet.lab.cost.count import COMPONENTS, complexity, total, training_memory
    from cyclenet.lab.paper import describe

    height, width = map(int, cfg.input.split("x"))
    costs = complexity(cfg.model, height, width, cfg.num_classes)
    memory = training_memory(cfg.model, height, width, cfg.num_classes)
    lines = [
        f"{describe(cfg.model)}, {cfg.model.backbone} at 1/{cfg.model.output_stride}, input {height} x {width}",
        f"{'':<16}{'parameters, M':>14}{'GFLOPs once':>13}{'executed':>10}{'kept for backward, MiB':>24}",
    ]
    names = {"decoder": cfg.model.decoder.upper() if cfg.model.decoder == "adc" else "decoder"}
    for name in (*COMPONENTS, "aux"):
        cost, kept = costs.get(name), memory.get(name, 0)
        if cost is None or cost.parameters or cost.executed:
            numbers = (
                f"{cost.parameters / 1e6:>14.2f}{cost.once / 1e9:>13.2f}{cost.executed / 1e9:>10.2f}" if cost else " " * 37
            )
            if kept or cost:
                lines.append(f"{names.get(name, name):<16}{numbers}{kept / 2**20:>24.0f}")
    whole = total(costs)
    lines.append(
        f"{'total':<16}{whole.parameters / 1e6:>14.2f}{whole.once / 1e9:>13.2f}{whole.executed / 1e9:>10.2f}"
        f"{sum(memory.values()) / 2**20:>24.0f}"
    )
    lines.append("Memory is of one image in float32; what fuses the context features counts as PartI's. aux: training only.")
    return "\n".join(lines)


def table1() -> str:
    """Format the paper's Table 1 with our counts."""
    from cyclenet.lab.cost.count import complexity, total
    from cyclenet.lab.paper import TABLE1, name_of

    lines = [
        "Table 1: ResNet-101 with a deep stem at 1/8, input 769 x 769, 19 classes; multiply-adds of convolutions",
        f"{'':<30}{'parameters, M':>14}{'GFLOPs executed':>17}{'once':>8}{'paper':>8}{'difference':>12}{'paper mIoU':>13}",
    ]
    for row in TABLE1:
        model = ModelConfig(context=row.context, atrous_rates=list(row.rates), decoder="none")
        cost = total(complexity(model, 769, 769))
        paper = f"{row.gflops:>8.1f}{100 * (cost.once / 1e9 / row.gflops - 1):>10.2f} %" if row.gflops else f"{'-':>8}{'-':>12}"
        lines.append(
            f"{name_of(row.context, list(row.rates)):<30}{cost.parameters / 1e6:>14.2f}{cost.executed / 1e9:>17.1f}"
            f"{cost.once / 1e9:>8.1f}{paper}{row.miou:>13.2f}"
        )
    return "\n".join(lines)


def run_table() -> str:
    """Format the cost model of the paper's Cityscapes run, and what loaders it needs."""
    from cyclenet.lab.cost.gpu_model import TOUCHES, Gpu, count_work, run_cost

    gpu, work = Gpu(), count_work(ModelConfig(), 769, 19)
    warm, cold = (_milliseconds(name) for name in ("data_warm", "data_cold"))
    lines = [
        f"A MODEL, NOT A MEASUREMENT: {gpu.name}, bf16-mixed, batch 8, 2975 images, 180 epochs, crop 769",
        f"counted: {work.flops / 1e12:.2f} TFLOP and {work.kept / 1e9:.2f} GB of kept activations an image, "
        f"{work.parameters / 1e6:.1f} M parameters, {work.norms} batch norms",
        f"assumed: {100 * gpu.flops_share:.0f} % of peak FLOP/s, {100 * gpu.bandwidth_share:.0f} % of bandwidth, {TOUCHES} "
        f"touches of an activation, {1e6 * gpu.latency:.0f} us a small all-reduce, half of the gradients' hidden",
        f"{'GPUs':>4}{'step, ms':>10}{'hours':>8}{'GPU hours':>11}{'images/s':>10}{'GB a GPU':>10}"
        f"{'loader processes: cached':>26}{'decoding':>10}",
    ]
    for gpus in (1, 4, 8):
        cost = run_cost(work, gpu, gpus, images=2975, epochs=180, batch_size=8)
        needed = [f"{cost.images * ms / 1000:.1f}" if ms else "?" for ms in (warm, cold)]
        lines.append(
            f"{gpus:>4}{1000 * cost.step:>10.0f}{cost.hours:>8.1f}{gpus * cost.hours:>11.1f}{cost.images:>10.1f}"
            f"{cost.memory / 1e9:>10.1f}{needed[0]:>26}{needed[1]:>10}"
        )
    if warm and cold:
        lines.append(f"A loader process makes a crop in {warm:.1f} ms from the cache, in {cold:.0f} by decoding (make bench).")
    return "\n".join(lines)


def _milliseconds(row: str) -> float | None:
    path = Path(__file__).resolve().parents[3] / "bench" / "results.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    return next((each["ours"] for each in rows if each["name"] == row), None)


if __name__ == "__main__":
    main()
