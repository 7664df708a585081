"""The examples in the docstrings of the public losses run and print what they say."""

import doctest
import sys

import pytest

import losses


@pytest.mark.parametrize("name", [name for name in losses.__all__ if name.endswith("_loss")])
def test_the_example_of_a_loss_prints_what_it_says(name):
    function = getattr(losses, name)
    (test,) = doctest.DocTestFinder().find(function, name, globs=vars(sys.modules[function.__module__]))
    assert test.examples
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not report, "".join(report)
