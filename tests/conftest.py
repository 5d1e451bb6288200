"""Fixtures of all tests in Python: a machine with hobd on it, and small repositories."""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import hobtest  # noqa: E402


def pytest_collection_modifyitems(items):
    """Without root there are no sandboxes; that is a failure of the run, not a reason to skip."""
    if items and os.geteuid() != 0:
        raise pytest.UsageError("these tests make sandboxes: run them as root, or by sudo")


@pytest.fixture
def machine():
    """A hob of its own, not started."""
    hob = hobtest.Hob()
    yield hob
    print("hobd's log ends:\n" + hob.tail())
    hob.close()


@pytest.fixture(scope="module")
def shared():
    """A running hob with one environment, `tiny`, with two ready sandboxes, for the tests of a file that
    leave it as it was."""
    hob = hobtest.Hob()
    try:
        repository = hob.repository("tiny")
        hob.tiny = repository
        hob.environment("tiny", source={"url": repository.path}, pool={"min": 2, "max": 40},
                        env={"TINY": "yes"})
        hob.build("tiny")
        hob.start()
        hob.wait_ready("tiny", 2)
    except BaseException:
        print(hob.tail())
        hob.sweep()
        raise
    yield hob
    hob.close()


@pytest.fixture
def client(shared):
    return shared.client


@pytest.fixture
def sandbox(shared):
    """The id of a claimed sandbox of `tiny`, released afterwards."""
    made = shared.client.create("tiny")["id"]
    yield made
    try:
        shared.client.delete(made)
    except hobtest.Failure as failure:
        assert failure.status == 404
