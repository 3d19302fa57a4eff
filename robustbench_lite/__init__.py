"""robustbench-lite: how robust is a classifier, and how far can that number be trusted?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from robustbench_lite.api import (
        AttackResult,
        attack,
        diagnose,
        list_attacks,
        list_data,
        list_models,
        list_threats,
    )
    from robustbench_lite.core.domain import Domain
    from robustbench_lite.core.goal import Goal
    from robustbench_lite.core.model import Model
    from robustbench_lite.core.settings import Search
    from robustbench_lite.core.threat import Threat
    from robustbench_lite.data.data import Data
    from robustbench_lite.data.load import load_data
    from robustbench_lite.faces.autoattack import AutoAttack
    from robustbench_lite.faces.libraries import as_art, as_foolbox
    from robustbench_lite.faces.robustbench import benchmark
    from robustbench_lite.models.function import ScoreFunction
    from robustbench_lite.models.load import load_model
    from robustbench_lite.models.names import Reading
    from robustbench_lite.models.sklearn.lift import lift
    from robustbench_lite.models.torch.module import TorchModel
    from robustbench_lite.records.folder import Folder
    from robustbench_lite.reports.results import Results
    from robustbench_lite.runs.config import Config
    from robustbench_lite.runs.loggers import logger
    from robustbench_lite.runs.observers import JsonLines, Observer
    from robustbench_lite.runs.run import run
    from robustbench_lite.search.attack import Attack
    from robustbench_lite.threats.named import parse_threat

_HOMES = {
    "Attack": "search.attack",
    "AttackResult": "api",
    "AutoAttack": "faces.autoattack",
    "Config": "runs.config",
    "Data": "data.data",
    "Domain": "core.domain",
    "Folder": "records.folder",
    "Goal": "core.goal",
    "JsonLines": "runs.observers",
    "Model": "core.model",
    "Observer": "runs.observers",
    "Reading": "models.names",
    "Results": "reports.results",
    "ScoreFunction": "models.function",
    "Search": "core.settings",
    "Threat": "core.threat",
    "TorchModel": "models.torch.module",
    "attack": "api",
    "as_art": "faces.libraries",
    "as_foolbox": "faces.libraries",
    "benchmark": "faces.robustbench",
    "diagnose": "api",
    "lift": "models.sklearn.lift",
    "list_attacks": "api",
    "list_data": "api",
    "list_models": "api",
    "list_threats": "api",
    "load_data": "data.load",
    "load_model": "models.load",
    "logger": "runs.loggers",
    "parse_threat": "threats.named",
    "run": "runs.run",
}

__all__ = [
    "Attack",
    "AttackResult",
    "AutoAttack",
    "Config",
    "Data",
    "Domain",
    "Folder",
    "Goal",
    "JsonLines",
    "Model",
    "Observer",
    "Reading",
    "Results",
    "ScoreFunction",
    "Search",
    "Threat",
    "TorchModel",
    "as_art",
    "as_foolbox",
    "attack",
    "benchmark",
    "diagnose",
    "lift",
    "list_attacks",
    "list_data",
    "list_models",
    "list_threats",
    "load_data",
    "load_model",
    "logger",
    "parse_threat",
    "run",
]


def __getattr__(name: str) -> object:
    """The public names, imported when first used: the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"robustbench_lite.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
