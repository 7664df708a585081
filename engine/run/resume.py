"""Checks of a resumed run: which settings it may change, and what it must have in common with its checkpoint."""

import logging
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

import torch

from data import CocoDetection
from data.counts import counted
from engine.run.checkpoint import CheckpointError
from engine.run.config import Config, ConfigError, parse_config
from engine.run.distributed import Processes
from engine.run.precision import resolve_precision
from engine.run.resume_command import CONFIG_FILE, resume_command
from engine.run.threads import thread_count

log = logging.getLogger(__name__)

# keys that a resumed run may change although their group must stay the same
FREE_ON_RESUME = {"data.root", "data.workers", "data.cache", "data.inside_only", "data.on_error", "schedule.max_steps"}
# keys of the evaluation that leave AP as it is; and the seed, which is one of the differences above
NOT_OF_AP = {"run.seed", *(f"evaluation.{key}" for key in ("every", "train_images", "batch_size", "winograd"))}
FIXED_GROUPS = ("model", "loss", "data", "optimizer", "schedule")


def recipe_facts(config: Config, dataset: CocoDetection, device: torch.device) -> dict[str, Any]:
    """Entries of a checkpoint that say what its configuration leaves open: the training set, the precision, and where
    a CPU computes, the number of its threads."""
    facts = {
        "training_set": {"images": len(dataset), "digest": dataset.digest},
        "precision": resolve_precision(config.run.precision, device),
    }
    return facts | ({"threads": thread_count(config.run)} if device.type == "cpu" else {})


def require_same_recipe(
    config: Config, state: dict[str, Any], source: str, dataset: CocoDetection, facts: dict[str, Any]
) -> None:
    """Refuses a resume that would change what is being trained.

    Args:
        state: checkpoint; of an old one that does not know its training set, a warning says so.
        source: the checkpoint's name for messages.
        dataset: the training set now; facts: `recipe_facts` now.
    Raises:
        ConfigError: naming all differences, as they are now and were before.
        CheckpointError: the checkpoint's configuration is not one of this version.
    """
    try:
        saved = parse_config(state["config"], source)
    except ConfigError as error:
        raise CheckpointError(f"{error}; the checkpoint is of another version of this project") from error
    of_config = config_differences(config.to_dict(), saved.to_dict())
    differences = list(of_config)
    if list(state["classes"]) != dataset.class_names:
        differences.append(
            f"the classes are {shown_classes(dataset.class_names)} now and were {shown_classes(state['classes'])}"
        )
    now, before = facts["training_set"], state.get("training_set")
    if before is None:
        log.warning("%s: of a version that did not record the training set, which is taken to be the same", source)
    elif before != now:
        differences.append(
            f"the training set is {_described(now)} now and was {_described(before)} ({dataset.annotation_file})"
        )
    # an old checkpoint of precision auto does not say what that was
    precision = state.get("precision", saved.run.precision)
    if precision not in ("auto", facts["precision"]):
        differences.append(f"run.precision is {facts['precision']!r} now and was {precision!r}")
    threads, before = facts.get("threads"), state.get("threads")
    if threads and before and threads != before:
        log.warning(
            "continues on %d CPU threads what %d began: sums are rounded differently, so the weights will not equal an "
            "undisturbed run's bit for bit; run.threads=%d keeps the number",
            threads,
            before,
            before,
        )
    if other := config_differences(config.to_dict(), saved.to_dict(), ("evaluation",), NOT_OF_AP):
        log.warning("%s: best.pt still stands for its AP of before", "; ".join(other))
    if differences:
        run = Path(source).parent.parent
        # other data or classes would end that command here too
        continues = differences == of_config and (run / CONFIG_FILE).exists()
        raise ConfigError(
            f"{source}: {'; '.join(differences)}; resume with the same, or start another run.name "
            f"(model.init_from takes over the weights){'; to continue: ' + resume_command(run) if continues else ''}"
        )


def require_same_step(step: int | None, processes: Processes) -> None:
    """Refuses processes that begin differently, as where hosts do not share the run folder.

    Args:
        step: of the checkpoint that this process read; None where it found none. Every process takes part, before any
            other collective.
    Raises:
        ConfigError: the steps differ; on every process.
    """
    if len(set(processes.gather(step))) > 1:
        here = "none" if step is None else f"step {step}"
        raise ConfigError(
            f"--resume: the processes' checkpoints differ (here {here}); put run.dir on a disk that all hosts share"
        )


def warn_of_other_processes(state: dict[str, Any], processes: Processes) -> None:
    """Warns where more or fewer processes continue a checkpoint than began it."""
    before, now = state.get("world_size", processes.world_size), processes.world_size
    if before != now:
        log.warning(
            "continues on %d processes what %d began: every step takes the same images in the same order, but "
            "sums are rounded differently, so the weights will not equal an undisturbed run's bit for bit",
            now,
            before,
        )


def config_differences(
    now: dict[str, Any],
    before: dict[str, Any],
    groups: Iterable[str] = FIXED_GROUPS,
    free: Set[str] = FREE_ON_RESUME,
) -> list[str]:
    """Keys of these groups, but for free ones, and the seed, where they differ: text with both values; the first two
    as of `Config.to_dict`."""
    names = [(group, key) for group in groups for key in now[group] | before[group]]
    return [
        f"{group}.{key} is {now[group].get(key)!r} now and was {before[group].get(key)!r}"
        for group, key in [*names, ("run", "seed")]
        if f"{group}.{key}" not in free and now[group].get(key) != before[group].get(key)
    ]


def _described(training_set: dict[str, Any]) -> str:
    return f"{counted(training_set['images'], 'image')} with ids and boxes of digest {training_set['digest'][:8]}"


def shown_classes(names: list[str]) -> str:
    """The first names and how many there are, for messages."""
    return ", ".join(map(repr, names[:5])) + (f", … ({len(names)})" if len(names) > 5 else "")
