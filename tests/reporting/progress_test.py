"""Progress bars on terminals and progress lines in logs."""

import io
import sys

import pytest

from sasa_tf.reporting import ProgressBar, format_metrics, track


class Terminal(io.StringIO):
  """A stream that is a terminal of unknown width."""

  def isatty(self):
    return True


class Clock:
  """Returns the seconds that a test sets."""

  def __init__(self):
    self.seconds = 0.0

  def __call__(self):
    return self.seconds


@pytest.fixture
def clock():
  return Clock()


@pytest.fixture
def log():
  return io.StringIO()


def test_log_lines_have_count_speed_remaining_time_and_metrics(clock, log):
  progress = ProgressBar(10, "train", unit="step", stream=log, clock=clock)
  clock.seconds = 2.0
  progress.advance_to(5, {"loss": 0.5})
  clock.seconds = 3.0
  progress.advance_to(6)  # too early for another line
  clock.seconds = 4.0
  progress.advance_to(10)  # the last item is always logged
  progress.close()
  assert log.getvalue().splitlines() == [
    "train step 5/10 (50%), 2.5 steps/s, 2 s left, loss 0.5",
    "train step 10/10 (100%), 2.5 steps/s",
  ]


def test_lines_are_limited_in_time(clock, log):
  progress = ProgressBar(100, unit="file", stream=log, clock=clock, seconds_between_lines=30)
  for second in range(1, 62):
    clock.seconds = second
    progress.advance()
  counts = [line.split()[1] for line in log.getvalue().splitlines()]
  assert counts == ["1/100", "31/100", "61/100"]


def test_initial_items_and_time_before_restart_do_not_count_as_speed(clock, log):
  progress = ProgressBar(7300, initial=100, stream=log, clock=clock)
  clock.seconds = 50.0
  progress.advance(0)  # nothing is done yet: no line
  progress.restart_timer()
  clock.seconds = 52.0
  progress.advance(2)
  assert log.getvalue() == "item 102/7300 (1%), 1 items/s, 2 h 00 min left\n"


def test_lines_become_rarer_in_long_work(clock, log):
  progress = ProgressBar(48 * 3600, unit="file", stream=log, clock=clock)
  seconds = []
  for second in range(1, 6 * 3600):
    clock.seconds = float(second)
    progress.advance()
    if (text := log.getvalue()).count("\n") > len(seconds):
      seconds.append(second)
      assert text.endswith("left\n")
  assert seconds[:3] == [1, 11, 21] and max(map(int.__sub__, seconds[1:], seconds)) == 300
  assert len(seconds) < 150
  assert log.getvalue().splitlines()[-1].endswith(", 1 files/s, 42 h 01 min left")


def test_warmup_has_no_speed(clock, log):
  progress = ProgressBar(10, stream=log, clock=clock, seconds_between_lines=0, warmup=True)
  clock.seconds = 100.0
  progress.advance(2)
  clock.seconds = 110.0
  progress.advance(2, {"loss": 0.5}, speed="fast", notes=["memory 1 GiB"])
  assert log.getvalue().splitlines() == [
    "item 2/10 (20%)",
    "item 4/10 (40%), fast, 30 s left, memory 1 GiB, loss 0.5",
  ]


def test_status_lines_replace_count_lines(clock, log):
  progress = ProgressBar(4, stream=log, clock=clock, transient=True)
  progress.set_status("compiling a", important=True)
  progress.advance(2)
  progress.set_status("compiling b", important=True)
  progress.set_status("round 1 of 9")
  clock.seconds = 20.0
  progress.advance()
  progress.set_status("round 2 of 9")
  progress.close()
  assert log.getvalue().splitlines() == [
    "[  0%] compiling a",
    "[ 50%] compiling b",
    "[ 75%] round 2 of 9",
  ]


def test_written_lines_go_to_the_chosen_stream(log):
  other = io.StringIO()
  progress = ProgressBar(2, stream=log)
  progress.write("first")
  progress.write("second", other)
  assert (log.getvalue(), other.getvalue()) == ("first\n", "second\n")


def test_nothing_to_do_is_no_error(log):
  with ProgressBar(0, stream=log) as progress:
    progress.set_status("done", important=True)
  assert log.getvalue() == "[  0%] done\n"


def test_terminal_shows_a_bar():
  terminal = Terminal()
  with ProgressBar(10, "Converting", unit="image", stream=terminal) as progress:
    progress.advance(4, {"loss": 0.25})
    progress.write("Skipped a.png")
    progress.set_description("Writing")
    progress.restart_timer()
    progress.advance_to(10)
  text = terminal.getvalue()
  assert "Converting" in text and "Writing" in text
  assert "Skipped a.png\n" in text
  assert "10/10" in text and "image" in text and text.endswith("\n")
  assert "4/10, " in text and " left, loss 0.25" in text


def test_terminal_without_tqdm_shows_lines(monkeypatch):
  monkeypatch.setitem(sys.modules, "tqdm", None)
  terminal = Terminal()
  with ProgressBar(1, "Converting", unit="image", stream=terminal) as progress:
    progress.advance()
  assert terminal.getvalue().startswith("Converting image 1/1 (100%), ")


def test_transient_bar_is_removed():
  terminal = Terminal()
  with ProgressBar(3, stream=terminal, transient=True) as progress:
    progress.set_status("compiling a")
    progress.advance(3)
  assert "compiling a" in terminal.getvalue()
  assert terminal.getvalue().split("\r")[-1].strip() == ""


def test_track_yields_all_items_and_logs_long_work(clock, log):
  tracked = track(range(3), "Checking", unit="file", stream=log, clock=clock)
  assert next(tracked) == 0
  assert next(tracked) == 1  # the first item took no time
  clock.seconds = 12.0
  assert list(tracked) == [2]
  assert log.getvalue() == "Checking file 2/3 (67%), 6 s/file, 6 s left\n"


def test_track_closes_its_bar_when_iteration_stops_early():
  terminal = Terminal()
  tracked = track(iter("ab"), total=2, stream=terminal, transient=False, delay=0)
  next(tracked)
  tracked.close()
  assert terminal.getvalue().endswith("\n")


def test_metrics_have_four_digits():
  assert format_metrics({"loss": 1.23456, "accuracy": 0.5}) == "loss 1.235, accuracy 0.5"
