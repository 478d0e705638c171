"""Count a model's parameters, multiply-adds and activation memory, by part.

  python src/complexity.py model=cyclenet|cyclenet_lite [model.KEY=VALUE ...] [input=769x769]
  python src/complexity.py table=table1      the paper's Table 1: its GFLOPs beside ours
  python src/complexity.py table=run         a cost model of the paper's run on 1, 4 and 8 GPUs

PyTorch's own counter counts on the meta device, so nothing is computed. GFLOPs are multiply-adds of
convolutions:
  once       each module at its first use only, as the paper counted: a filter that feedback uses
             again is free
  executed   what is really done
"""

from cyclenet.config.commands import ComplexityConfig


def run(cfg: ComplexityConfig) -> None:
    """Print the table that the configuration asks for."""
    from cyclenet.lab.cost.tables import model_table, run_table, table1

    if cfg.table == "table1":
        print(table1())
    elif cfg.table == "run":
        print(run_table())
    else:
        print(model_table(cfg))
