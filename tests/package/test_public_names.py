"""Names of the package: each is imported when asked for, and nothing before that."""

import subprocess
import sys
from pathlib import Path

import pytest

import losses

ROOT = Path(__file__).resolve().parents[2]


def test_every_public_name_is_found_where_it_is_said_to_be():
    assert sorted(losses._HOMES) == sorted(losses.__all__)
    for name, home in losses._HOMES.items():
        assert getattr(losses, name).__module__ == f"losses.{home}"
    assert set(losses.__all__) < set(dir(losses))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'losses' has no attribute 'alrp_los'"):
        _ = losses.alrp_los
    with pytest.raises(ImportError, match="cannot import name 'alrp_los'"):
        from losses import alrp_los  # noqa: F401


def test_a_star_gives_the_public_names():
    names: dict = {}
    exec("from losses import *", names)
    assert set(losses.__all__) <= set(names)


def test_importing_the_package_imports_no_torch():
    code = "import losses, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
