"""Configuration, training, evaluation and tools around a detector. What a user imports, without importing the rest."""

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; importing `typing` would delay a command's answer to Ctrl-C
if TYPE_CHECKING:
    from engine.run.config import Config, ConfigError, load_config
    from engine.run.load import DetectorInfo, load_detector
    from engine.tools.prediction import predict

__all__ = ["Config", "ConfigError", "DetectorInfo", "load_config", "load_detector", "predict"]

_HOMES = {
    "engine.run.config": ("Config", "ConfigError", "load_config"),
    "engine.run.load": ("DetectorInfo", "load_detector"),
    "engine.tools.prediction": ("predict",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
