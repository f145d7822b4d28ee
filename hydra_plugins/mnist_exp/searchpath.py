"""The user's folder ./conf. Like sweeper.py, quick to import."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class UserConf(SearchPathPlugin):
    """Searches ./conf before the program's own conf/, so that options of one's own need no clone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Prepend ./conf where it exists and the command is this program's: plugins serve every Hydra program.

        Raises:
            ConfigError: The folder is that of another Hydra program.
        """
        from mnist_exp.system.errors import ConfigError
        from mnist_exp.system.program import CONF

        folder = Path("conf").absolute()
        if not folder.is_dir() or folder.samefile(CONF):
            return
        main = [Path(element.path) for element in search_path.get_path() if element.provider == "main"]
        if not any(path.is_dir() and path.samefile(CONF) for path in main):
            return
        config = folder / "config.yaml"
        if config.exists() and "- schema" not in config.read_text(encoding="utf-8", errors="replace"):
            raise ConfigError(f"{config}: the config of another program, without `- schema`; work in another folder")
        search_path.prepend("./conf", f"file://{folder}", anchor="main")
