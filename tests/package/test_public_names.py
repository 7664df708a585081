"""Names of the package: each is imported when asked for, and nothing before that."""

import subprocess
import sys
from pathlib import Path

import pytest

import engine.metrics
import losses

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", [losses, engine.metrics])
def test_every_public_name_is_found_where_it_is_said_to_be(package):
    assert sorted(package._HOMES) == sorted(package.__all__)
    for name, home in package._HOMES.items():
        assert getattr(package, name).__module__ == f"{package.__name__}.{home}"
    assert set(package.__all__) < set(dir(package))


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
