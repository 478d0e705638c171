from dataclasses import replace

import pytest
import torch

from conftest import tiny_model
from cyclenet.config.commands import ComplexityConfig
from cyclenet.config.model import ModelConfig
from cyclenet.config.naming import arm_label
from cyclenet.lab.cost.count import count_cost, total, training_memory
from cyclenet.lab.paper import TABLE1, find_row, has_papers_costs
from cyclenet.models.cyclenet import build_model


@pytest.mark.parametrize(
    ("row", "once", "executed"),
    zip(
        TABLE1[1:],
        [537.5, 553.8, 529.2, 549.8, 572.3],
        [537.5, 553.8, 551.4, 577.6, 605.6],
        strict=True,
    ),
    ids=lambda value: f"{value.context}{value.rates}" if isinstance(value, tuple) else None,
)
def test_the_five_numbers_of_table_1(row, once, executed):
    model = ModelConfig(
        context=row.context, atrous_rates=list(row.rates), decoder="none", align_corners=True
    )
    cost = total(count_cost(model, 769, 769))
    assert round(cost.once / 1e9, 1) == once and round(cost.executed / 1e9, 1) == executed
    assert abs(cost.once / 1e9 / row.gflops - 1) < 0.0035


def test_the_commands_tables():
    from cyclenet.lab.cost.tables import model_table, table1

    output = table1()
    for expected in (
        "537.5   539.1     -0.30 %",
        "553.8   555.5",
        "529.2   530.8",
        "549.8   551.5",
        "572.3   574.0",
    ):
        assert expected in output
    output = model_table(ComplexityConfig(tiny_model(), input="64x96", num_classes=7))
    assert "input 64 x 96" in output and [line.split()[0] for line in output.splitlines()[2:9]] == [
        "backbone", "context,", "context,", "context,", "decoder", "classifier", "aux"
    ]  # fmt: skip


def test_context_and_adc_by_hand():
    """Every multiply-add of CycleASPP (eq. 2-3) and ADC (eq. 4-5), written out from the widths."""
    cfg = tiny_model(feedback=2, output_stride=8)
    costs = count_cost(cfg, 64, 96, 7)
    c0, m, g, head, layers, pixels = 16, 12, 8, 16, 3, 8 * 12
    part1 = 512 * c0 + sum((c0 + j * g) * m + 9 * m * g for j in range(layers))
    one_pass = layers * ((layers - 1) * g * m + 9 * m * g)
    assert costs["context, PartI"].executed == costs["context, PartI"].once == pixels * part1
    first, second = costs["context, PartII, pass 1"], costs["context, PartII, pass 2"]
    assert first.executed == second.executed == pixels * one_pass
    # The 1x1 projections count once, at their first use, and the shared 3x3 not at all.
    assert (first.once, second.once) == (pixels * layers * (layers - 1) * g * m, 0)
    assert costs["context, fuse"].once == pixels * 9 * (c0 + layers * g) * head
    low, quarter = 64, 16 * 24
    offsets = 9 * (low + head) * head + 9 * head * 27
    fuse = 9 * (low + head) * head + 9 * head * head
    assert costs["decoder"].executed == quarter * (offsets + 9 * head * head + fuse)
    assert costs["classifier"].executed == quarter * head * 7
    parts = [f"context, {name}" for name in ("PartI", "PartII, pass 1", "PartII, pass 2", "fuse")]
    assert list(costs) == ["backbone", *parts, "decoder", "classifier"]


def test_the_products_of_a_module_that_runs_again_count_once():
    """CCNet's one criss-cross attention is applied twice."""
    cfg = tiny_model(context="ccnet", head_channels=16, output_stride=8, decoder="none")
    cost = total(count_cost(cfg, 64, 96, 7))
    head, height, width = 16, 8, 12
    filters = 2 * head * (head // 8) + head * head
    products = (head // 8 + head) * (height + width)
    assert cost.executed - cost.once == height * width * (filters + products)


def test_a_projection_that_both_parts_use_counts_once():
    """With share_projections, PartII's filter of earlier layers is a part of PartI's."""
    cfg = tiny_model(feedback=2, output_stride=8, share_projections=True)
    costs, alone = (count_cost(c, 64, 96, 7) for c in (cfg, replace(cfg, share_projections=False)))
    first, second = costs["context, PartII, pass 1"], costs["context, PartII, pass 2"]
    m, g, layers, pixels = 12, 8, 3, 8 * 12
    later = sum(layers - 1 - j for j in range(layers))
    assert (first.once, second.once) == (pixels * later * g * m, 0)
    assert first.executed == alone["context, PartII, pass 1"].executed
    assert first.parameters == alone["context, PartII, pass 1"].parameters - 3 * g * m


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"context": "aspp"},
        {"context": "none", "decoder": "none"},
        {"feedback": 2, "share_norm": True},
        {"feedback": 2, "share_projections": True},
    ],
)
def test_parameters_are_those_of_the_model(changes):
    cfg = tiny_model(**changes)
    model = build_model(replace(cfg, aux_head=False), 7)
    assert total(count_cost(cfg, 64, 64, 7)).parameters == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize("changes", [{}, {"feedback": 2}, {"context": "aspp"}, {"context": "none"}])
def test_memory_kept_for_backward_is_what_a_real_step_keeps(changes):
    cfg = tiny_model(decoder="skip", **changes)
    model = build_model(cfg, 7).train()
    parameters = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.rand(2, 3, 96, 64))
    real = sum(size for _, size in kept.values())
    assert sum(training_memory(cfg, 96, 64, 7).values()) == pytest.approx(real / 2, rel=0.01)


def test_feedback_costs_memory_in_proportion():
    memory = [training_memory(tiny_model(feedback=k), 64, 64, 7) for k in range(4)]
    assert "context, PartII" not in memory[0] and memory[1]["context, PartII"] > 0
    passes = [memory[3][f"context, PartII, pass {k}"] for k in (1, 2, 3)]
    assert max(passes) == pytest.approx(min(passes), rel=0.05)
    assert len({m["context, PartI"] for m in memory}) == 1


def test_arms_are_named_and_found_in_the_paper():
    assert arm_label(ModelConfig()) == "CycleASPP(3,6,12,18,24,30) + ADC"
    assert arm_label(ModelConfig(context="none", decoder="skip")) == "Baseline + skip"
    assert (
        arm_label(ModelConfig(feedback=3, mask_scale=0))
        == "CycleASPP(3,6,12,18,24,30) k=3 + ADC without modulation"
    )
    assert (
        find_row(ModelConfig(), "whole").miou == 80.55
        and find_row(ModelConfig(), "paper_ms").miou == 81.26
    )
    assert find_row(ModelConfig(context="none", decoder="none"), "whole").miou == 76.25
    # k = 0 is DenseASPP; at 1/16 the rates are half as large.
    half = ModelConfig(output_stride=16, atrous_rates=[2, 3, 6, 9, 12], decoder="none")
    assert (
        find_row(half, "whole").miou == 78.93
        and find_row(replace(half, feedback=0), "whole").miou == 78.45
    )
    for changes in (
        {"feedback": 2},
        {"mask_scale": 0.0},
        {"share_norm": True},
        {"first_block_dilation": "stage"},
        {"decoder": "skip"},
        {"atrous_rates": [1, 2, 3]},
    ):
        assert find_row(replace(ModelConfig(), **changes), "whole") is None
    assert (
        find_row(ModelConfig(), "sliding").miou == 80.55
        and find_row(ModelConfig(), "mmseg_ms_flip") is None
    )
    assert has_papers_costs(ModelConfig(decoder="none")) and not has_papers_costs(
        replace(ModelConfig(), backbone="resnet101")
    )


@pytest.mark.parametrize("name", ["convnext_atto", "hrnet_w18_small"])
def test_any_backbone_can_be_counted(name):
    """Blocks with weights beside their children's."""
    costs = count_cost(tiny_model(backbone=name, output_stride=32), 64, 64, 7)
    assert costs["backbone"].executed == costs["backbone"].once > 0


def test_the_cost_model_follows_its_assumptions():
    from cyclenet.lab.cost.gpu_model import Gpu, Work, model_run

    work, gpu = (
        Work(flops=4e12, kept=2e9, parameters=10**8, norms=100),
        Gpu(flops=100e12, flops_share=0.5, latency=1e-5),
    )
    one = model_run(work, gpu, 1, images=2975, epochs=180, batch_size=8)
    # 8 images: 0.64 s of arithmetic, and 128 GB through 1.4 TB/s.
    assert one.step == pytest.approx(0.64 + 128e9 / 1.4e12)
    assert one.hours == pytest.approx(180 * 371 * one.step / 3600) and one.memory == 1.2e9 + 16e9
    four = model_run(work, gpu, 4, images=2975, epochs=180, batch_size=8)
    # 1.5 times 400 MB over 200 GB/s, half of it hidden; 400 small ones.
    assert four.step == pytest.approx(
        one.step / 4 + 0.0015 + 0.004
    ) and four.images == pytest.approx(8 / four.step)


def test_the_cost_model_counts_the_papers_run():
    from cyclenet.lab.cost.gpu_model import count_work

    work = count_work(ModelConfig(), 769, 19)
    auxiliary = 97 * 97 * (9 * 1024 * 256 + 256 * 19)
    assert work.flops == 6 * (total(count_cost(ModelConfig(), 769, 769)).executed + auxiliary)
    # The stem, the blocks, their shortcuts; reduce, two for each layer and pass, fuse; ADC; the
    # auxiliary head.
    assert work.norms == 3 + 99 + 4 + 26 + 4 + 1
