"""Order, length and summary of runs, with a clock that the runs advance themselves."""

import pytest

from sasa_tf.benchmarks.measurement.timing import Summary, iterations_for, round_robin


class Clock:
  """A clock that only advances in `work`."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now

  def work(self, seconds):
    self.now += seconds


@pytest.mark.parametrize(("seconds", "overhead"), [(1e-6, 1e-3), (0.003, 0.0), (5.0, 0.0)])
def test_runs_are_long_enough_and_not_much_longer(seconds, overhead):
  clock = Clock()
  iterations = iterations_for(
    lambda iterations: clock.work(overhead + iterations * seconds), 0.2, clock
  )
  assert overhead + iterations * seconds >= 0.2
  assert iterations == 1 or iterations * seconds < 0.3


def test_clock_with_low_resolution():
  clock = Clock()
  assert iterations_for(lambda iterations: clock.work(iterations // 100), 0.2, clock) >= 100


def test_twice_the_work_is_measured_as_twice_the_time():
  clock = Clock()
  runs = {"once": lambda: clock.work(0.1), "twice": lambda: clock.work(0.2)}
  results = list(round_robin(runs, 4, clock))
  assert [seconds for name, seconds in results if name == "once"] == pytest.approx([0.1] * 4)
  assert [seconds for name, seconds in results if name == "twice"] == pytest.approx([0.2] * 4)


def test_each_runs_once_per_round_in_rotating_order():
  order = []
  runs = {name: lambda name=name: order.append(name) for name in "abc"}
  assert len(list(round_robin(runs, 4))) == 12
  assert "".join(order) == "abcbcacababc"


def test_drift_of_the_machine_affects_all_alike():
  clock = Clock()
  slowness = iter(range(1, 1000))
  runs = {name: lambda: clock.work(0.001 * next(slowness)) for name in "abc"}
  totals = dict.fromkeys("abc", 0.0)
  for name, seconds in round_robin(runs, 30, clock):
    totals[name] += seconds
  assert max(totals.values()) < 1.01 * min(totals.values())


def test_failure_is_reported_and_the_others_continue():
  rounds = iter(range(100))

  def sometimes():
    if next(rounds) == 1:
      raise MemoryError("full")

  results = list(round_robin({"bad": sometimes, "good": lambda: None}, 4))
  assert [type(result) for name, result in results if name == "bad"] == [float, MemoryError]
  assert len([name for name, _ in results if name == "good"]) == 4


def test_no_runs_are_no_error():
  assert list(round_robin({}, 3)) == []


def test_median_and_quartiles():
  assert Summary.of([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)
  assert Summary.of([2.0]) == (2.0, 2.0, 2.0)
  assert Summary.of([1.0, 2.0]).median == 1.5


@pytest.mark.parametrize(
  ("other", "overlap"), [((2, 2, 3), True), ((9, 4, 9), True), ((5, 4.1, 6), False)]
)
def test_overlap_of_quartiles(other, overlap):
  summary = Summary(3.0, 2.0, 4.0)
  assert summary.overlaps(Summary(*other)) == Summary(*other).overlaps(summary) == overlap
