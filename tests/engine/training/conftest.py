"""A finished run that many tests look at."""

import pytest
from in_process import train


@pytest.fixture(scope="session")
def finished(tmp_path_factory, write_config):
    """A run of two epochs that tests look at and leave as it is."""
    status, folder = train(write_config(tmp_path_factory.mktemp("finished")), "optimizer.ema_decay=0.9")
    assert status == 0
    return folder
