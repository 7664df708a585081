"""A short scripts/dev/torture.py; docs/reliability.md reports a long one."""

import re

import pytest


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_ends_as_if_undisturbed(command):
    result = command("scripts/dev/torture.py", "--kills", 4, "--processes", 1, "--epochs", 2)
    assert result.returncode == 0, result.stdout + result.stderr
    kills = [int(n) for n in re.findall(r"run \d+: (\d+) kills", result.stdout)]
    assert sum(kills) == 4
    assert result.stdout.rstrip().endswith("no difference")
