"""Configuration, training loop, processes, checkpoints, evaluation and logging."""

from engine.config import Config, ConfigError, load_config
from engine.load import DetectorInfo, load_detector
from engine.prediction import predict

__all__ = ["Config", "ConfigError", "DetectorInfo", "load_config", "load_detector", "predict"]
