"""Work is spread over processes or a Ray cluster: the answers are those of doing it here, in the same order."""

import os
import time
from pathlib import Path

import pytest

from iy import params
from iy.errors import UserError
from iy.workers import ALONE, each

JOBS = list(range(ALONE + 30))


@pytest.fixture(autouse=True)
def ray_can_import_this_file(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def workers(kind: str, count: int = 2, address: str | None = None) -> params.Workers:
    return params.Workers(map=kind, count=count, address=address)


def square(number: int) -> tuple[int, int, str]:
    time.sleep(0.002 * (number % 3))  # later jobs are done first, unless somebody waits
    return number**2, os.getpid(), os.getcwd()


def third_fails(number: int) -> int:
    if number == 3:
        raise UserError("job 3 cannot be done: leave it out")
    return number


def third_ends_its_process(number: int) -> int:
    if number == 3:
        os._exit(9)
    return number


@pytest.mark.parametrize("kind", ["serial", "processes", "ray"])
def test_answers_come_in_the_order_of_the_jobs(kind):
    answers = list(each(square, JOBS, workers(kind), chunk=3))
    assert [answer[0] for answer in answers] == [number**2 for number in JOBS]
    assert {answer[2] for answer in answers} == {os.getcwd()}, "paths must mean the same everywhere"
    if kind == "serial":
        assert {answer[1] for answer in answers} == {os.getpid()}
    else:
        assert os.getpid() not in {answer[1] for answer in answers}


@pytest.mark.parametrize("kind", ["serial", "processes", "ray"])
def test_what_a_job_raises_is_raised_here(kind):
    with pytest.raises(UserError, match="job 3 cannot be done"):
        list(each(third_fails, JOBS, workers(kind)))


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_a_worker_that_dies_is_one_clear_line(kind):
    with pytest.raises(UserError, match=r"ended from outside.*workers\.count \(now 2\)"):
        list(each(third_ends_its_process, JOBS, workers(kind)))


def test_an_address_where_no_cluster_is_is_one_clear_line():
    with pytest.raises(UserError, match=r"workers\.address 127\.0\.0\.1:9: no Ray cluster answers.*ray start"):
        list(each(square, JOBS, workers("ray", address="127.0.0.1:9")))
