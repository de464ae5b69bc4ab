"""Runs in turn and their length, by a clock that the contestants themselves move on."""

import pytest

from sasa_tf.benchmarks.measurement.timing import round_robin, turns_for


class Clock:
  """Stands still unless somebody works."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now

  def work(self, seconds):
    self.now += seconds


@pytest.mark.parametrize(("a_turn", "overhead"), [(1e-6, 1e-3), (0.003, 0.0), (5.0, 0.0)])
def test_a_run_is_long_enough_and_not_much_longer(a_turn, overhead):
  clock = Clock()
  turns = turns_for(lambda turns: clock.work(overhead + turns * a_turn), 0.2, clock)
  assert overhead + turns * a_turn >= 0.2
  assert turns == 1 or turns * a_turn < 0.3


def test_a_clock_too_coarse_for_one_turn_is_no_trouble():
  clock = Clock()
  assert turns_for(lambda turns: clock.work(turns // 100), 0.2, clock) >= 100


def test_twice_the_work_is_measured_as_twice_the_time():
  clock = Clock()
  runs = {"once": lambda: clock.work(0.1), "twice": lambda: clock.work(0.2)}
  results = list(round_robin(runs, 4, clock))
  assert [seconds for name, seconds in results if name == "once"] == pytest.approx([0.1] * 4)
  assert [seconds for name, seconds in results if name == "twice"] == pytest.approx([0.2] * 4)


def test_each_runs_once_a_round_and_the_first_changes():
  order = []
  runs = {name: lambda name=name: order.append(name) for name in "abc"}
  assert len(list(round_robin(runs, 4))) == 12
  assert "".join(order) == "abcbcacababc"


def test_drift_of_the_machine_hits_all_alike():
  clock = Clock()
  slowness = iter(range(1, 1000))
  runs = {name: lambda: clock.work(0.001 * next(slowness)) for name in "abc"}
  totals = dict.fromkeys("abc", 0.0)
  for name, seconds in round_robin(runs, 30, clock):
    totals[name] += seconds
  assert max(totals.values()) < 1.01 * min(totals.values())


def test_who_fails_is_told_and_the_others_go_on():
  rounds = iter(range(100))

  def sometimes():
    if next(rounds) == 1:
      raise MemoryError("full")

  results = list(round_robin({"bad": sometimes, "good": lambda: None}, 4))
  assert [type(result) for name, result in results if name == "bad"] == [float, MemoryError]
  assert len([name for name, _ in results if name == "good"]) == 4


def test_nobody_left_is_no_error():
  assert list(round_robin({}, 3)) == []
