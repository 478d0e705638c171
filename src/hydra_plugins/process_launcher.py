"""Make `cyclenet.lab.sweeps.launcher` known to Hydra, which wants its plugins in this package."""

from hydra.core.config_store import ConfigStore

from cyclenet.lab.sweeps import launcher

TARGET = "hydra_plugins.process_launcher.ProcessLauncher"


class ProcessLauncher(launcher.ProcessLauncher):
    """See `cyclenet.lab.sweeps.launcher.ProcessLauncher`."""


ConfigStore.instance().store(
    group="hydra/launcher",
    name="process",
    node=launcher.ProcessLauncherConf(_target_=TARGET),
    provider="cyclenet",
)
