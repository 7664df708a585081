"""A finished run that many tests look at."""

import pytest
from in_process import train


@pytest.fixture(scope="session")
def finished(tmp_path_factory, write_config):
    """A run of two epochs, evaluated on the training images too, that tests look at and leave as it is."""
    more = ("optimizer.ema_decay=0.9", "evaluation.train_images=12")
    status, folder = train(write_config(tmp_path_factory.mktemp("finished")), *more)
    assert status == 0
    return folder
