"""How many CPUs this process may use: a container or a scheduler rarely gives it all of a machine."""

import os
from pathlib import Path

PROC, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """CPUs of the process's affinity, or whole CPUs of the quota of its control groups where that is less; at least 1.

    Depends on what the process is allowed, never on what others are doing: seeded runs stay repeatable.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(int(quota) for quota in _quotas())]))


def _quotas() -> list[float]:
    """CPUs that the process's control groups leave it."""
    return [quota for folder in control_groups("cpu") if (quota := _quota(folder)) is not None]


def control_groups(controller: str) -> set[Path]:
    """Folders of the process's control groups and of those above them, of both versions; some may not exist."""
    try:
        lines = PROC.read_text().splitlines()
    except OSError:  # not Linux
        return set()
    folders = set()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        roots = [CGROUPS / controllers, CGROUPS / controller] if controllers else [CGROUPS, CGROUPS / "unified"]
        group = Path(path.lstrip("/"))
        # A container may name its group as the host does and yet have it mounted as the root.
        folders |= {root / folder for root in roots for folder in (group, *group.parents, Path())}
    return folders


def _quota(folder: Path) -> float | None:
    """CPUs of one control group; None where it has no limit."""
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or "max"
        return None
