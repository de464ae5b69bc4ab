"""What all programs do about output and errors."""

import os
import subprocess
import sys

import pytest

from sasa_tf.bin import xla_flags
from sasa_tf.errors import UserError


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_encoding_lacks_are_printed_as_escapes(encoding):
  names = r"'\u732b \udcff \ud800'"
  program = (
    "from sasa_tf.bin import program\n"
    "from sasa_tf.errors import UserError\n"
    "def main(argv):\n"
    f"  print({names})\n"
    f"  raise UserError({names})\n"
    "program.run(main)\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", program],
    env={**os.environ, "PYTHONIOENCODING": encoding},
    capture_output=True,
    check=False,
  )
  expected = names[1:-1].encode() if encoding != "utf-8" else rb"\udcff \ud800"
  assert result.returncode == 2
  assert expected in result.stdout
  assert result.stderr.startswith(b"error: ") and expected in result.stderr


def run(main, *shell, **environment):
  """Runs a program with this `main` in a shell, as `PROGRAM` in its command."""
  program = f"from sasa_tf.bin import program\ndef main(argv):\n  {main}\nprogram.run(main)"
  return subprocess.run(
    ["bash", "-c", *shell],
    env={**os.environ, **environment, "PROGRAM": program, "PYTHON": sys.executable},
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )


def test_reader_that_is_gone_ends_the_program_as_other_unix_tools():
  later = "print(1); import time; time.sleep(1); print(2)"
  for main in ("[print(i) for i in range(10**6)]", later):
    done = run(main, '"$PYTHON" -uc "$PROGRAM" | head -1; echo ${PIPESTATUS[0]}')
    assert done.stdout.splitlines()[1:] == ["141"] and done.stderr == "", done.stderr


def test_broken_pipe_of_another_process_is_an_internal_error():
  done = run("raise BrokenPipeError(32, 'a worker')", '"$PYTHON" -c "$PROGRAM"')
  assert done.returncode == 1 and "BrokenPipeError" in done.stderr


def test_closed_streams_are_not_given_to_files(tmp_path):
  main = f"file = open('{tmp_path}/a', 'w'); print(file.fileno() > 2, file=file); print('lost')"
  done = run(main, '"$PYTHON" -c "$PROGRAM" <&- >&- 2>&-')
  assert done.returncode == 0
  assert (tmp_path / "a").read_text() == "True\n"


def test_full_output_is_one_line():
  for flags in ("-c", "-uc"):
    done = run("print(1)", f'"$PYTHON" {flags} "$PROGRAM" > /dev/full')
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "standard output cannot be written: No space left on device. Free" in done.stderr


@pytest.mark.parametrize(
  ("name", "value"),
  [("TF_NUM_INTRAOP_THREADS", "-5"), ("TF_NUM_INTEROP_THREADS", "-1"), ("XLA_FLAGS", "/no/file")],
)
def test_environment_on_which_tensorflow_aborts_is_one_line(name, value):
  done = run("print(1)", '"$PYTHON" -c "$PROGRAM"', **{name: value})
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert done.stderr.startswith(f"error: the environment variable {name}={value}: expected")


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (
      "FailedPreconditionError: Error executing an HTTP request: libcurl code 6\\n"
      "\\t when reading metadata of gs://b/a-*",
      "gs://b/a-* cannot be reached: Error executing an HTTP request: libcurl code 6. Check",
    ),
    (
      "ModuleNotFoundError: no_such_module",
      "the Python package that provides the module 'no_such_module' is missing. Install it",
    ),
  ],
)
def test_errors_of_networks_and_packages_are_one_line(error, message):
  name, _, text = error.partition(": ")
  main = f"raise type('{name}', (Exception,), {{}})('{text}')"
  if name == "ModuleNotFoundError":
    main = f"import {text}"
  done = run(main, '"$PYTHON" -c "$PROGRAM"')
  assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
  assert done.stderr.startswith(f"error: {message}")


def test_error_that_cannot_be_printed_keeps_its_status():
  for flags in ("-c", "-uc"):
    main = "from sasa_tf.errors import UserError; raise UserError('x')"
    assert run(main, f'"$PYTHON" {flags} "$PROGRAM" 2> /dev/full').returncode == 2


def test_python_without_docstrings_is_one_line():
  done = run("print(1)", '"$PYTHON" -OO -c "$PROGRAM"')
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert "-OO, PYTHONOPTIMIZE=2" in done.stderr and "Run it with -O at most." in done.stderr
  assert run("print(1)", '"$PYTHON" -O -c "$PROGRAM"').returncode == 0


def test_small_limit_of_virtual_memory_is_one_line():
  done = run("print(1)", 'ulimit -v 1000000; "$PYTHON" -c "$PROGRAM"')
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert done.stderr.startswith("error: the limit of virtual memory is 1000000 kB (ulimit -v)")


def test_names_that_are_not_utf8_are_one_line():
  for program, argument in (
    ("pass", "$(printf 'm\\377')"),
    ("'m\\udcff'.encode()", ""),
  ):
    done = run(program, f'"$PYTHON" -c "$PROGRAM" {argument}')
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert r"error: the path or text 'm\udcff' holds a byte that is not UTF-8" in done.stderr


def test_invalid_flags_are_one_line():
  for flag in ("--no_such_flag=1", "--verbosity=x"):
    done = run("print(1)", f'"$PYTHON" -c "$PROGRAM" {flag}')
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert done.stderr.endswith("--helpshort lists the flags.\n")


def test_missing_flags_and_broken_flag_files_are_one_line(tmp_path):
  (tmp_path / "binary").write_bytes(b"\xa0\x00")
  (tmp_path / "circular").write_text(f"--flagfile={tmp_path}/circular\n")
  required = "from absl import flags; flags.DEFINE_string('a_b', None, '', required=True)\n"
  required += required[len("from absl import flags; ") :].replace("a_b", "c")
  for flag, expected in (
    (f"--flagfile={tmp_path}/binary", "a file of --flagfile is not text with one flag per line"),
    ("--flagfile=/nonexistent", "Unable to open flagfile: [Errno 2] No such file"),
    (f"--flagfile={tmp_path}/circular", "expected --a_b, --c; received no value of them."),
    ("--c=1", "expected --a_b; received no value of it."),
    ("--a_b=1 --c=1 --v=abc", "flag --verbosity=abc: expected an integer."),
    ("--a_b=1 --c=1 --helpfulll", "Unknown command line flag 'helpfulll'"),
  ):
    done = run("pass", f'"$PYTHON" -c "{required}$PROGRAM" {flag}')
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith(f"error: {expected}"), done.stderr
    assert "Traceback" not in done.stderr


def test_small_limit_of_open_files_is_raised_or_one_line():
  done = run(
    "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])",
    'ulimit -S -n 30; "$PYTHON" -c "$PROGRAM"',
  )
  assert done.returncode == 0 and done.stdout == "256\n", done.stderr
  done = run("print(1)", 'ulimit -n 30; "$PYTHON" -c "$PROGRAM"')
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert done.stderr.startswith("error: the limit of open files is 30 (ulimit -n)")


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_file_names_are_utf8_in_every_locale(locale, tmp_path):
  name = tmp_path / "猫.txt"
  name.write_text("ü", encoding="utf-8")
  main = "print(ascii(open(argv[1]).read()), ascii(argv[1]), 'ü')"
  shell = '"$PYTHON" -c "$PROGRAM" "$1"'
  strict = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": locale}
  done = run(main.replace("ü'", "\\xfc'"), shell, "bash", str(name), **strict)
  assert done.returncode == 0, done.stderr
  assert "'\\xfc'" in done.stdout and "\\u732b.txt" in done.stdout


@pytest.mark.parametrize(
  ("error", "message"),
  [
    ("OSError(36, 'File name too long', 'a/a')", "a/a cannot be used: File name too long. Choose"),
    ("PermissionError(13, 'Permission denied', 'b')", "b cannot be used: Permission denied. Cha"),
    ("OSError(27, 'File too large')", "a file or standard output cannot be written: File too l"),
    ("MemoryError('99 GiB')", "out of memory (99 GiB). Use less data, a smaller model or smaller"),
    ('RuntimeError("can\'t start new thread")', "no further thread can be started. Raise the li"),
    (
      "type('FailedPreconditionError', (Exception,), {})('m/checkpoint.new; Is a directory')",
      "m/checkpoint.new cannot be used: Is a directory. Expected a file: choose another path.",
    ),
    (
      "type('UnknownError', (Exception,), {})"
      "('Graph execution error:\\n\\n d/a; Too many levels of symbolic links\\n [[node]]')",
      "d/a cannot be used: Too many levels of symbolic links. A link refers to itself: remove",
    ),
    (
      "type('ResourceExhaustedError', (Exception,), {})"
      "('{{function_node Fill}} OOM when allocating shape[1] [Op:Fill] name: ')",
      "out of memory (OOM when allocating shape[1]). Use less data",
    ),
    (
      "type('UnimplementedError', (Exception,), {})"
      """("File system scheme 's3' not implemented (file: 's3://b/x-*')")""",
      "TensorFlow has no file system for s3://b/x-*. Copy the files to a local directory",
    ),
  ],
)
def test_errors_of_the_machine_are_one_line(error, message):
  done = run(f"raise {error}", '"$PYTHON" -c "$PROGRAM"')
  assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
  assert done.stderr.startswith(f"error: {message}")


def test_missing_file_that_no_check_foresaw_is_an_internal_error():
  done = run("open('/nonexistent')", '"$PYTHON" -c "$PROGRAM"')
  assert done.returncode == 1 and "FileNotFoundError" in done.stderr


@pytest.mark.parametrize("name", ["XLA_FLAGS", "TF_XLA_FLAGS"])
def test_unknown_flags_of_xla_are_named(name):
  value = "--xla_no_such_flag=1"
  done = run("print(1)", '"$PYTHON" -c "$PROGRAM"', **{name: value})
  assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
  assert done.stderr.startswith(f"error: the environment variable {name}={value}: this version of")
  assert f"rejects {value}. Correct or unset it." in done.stderr


def test_flags_that_tensorflow_has_are_found_without_starting_it(monkeypatch):
  monkeypatch.setattr(xla_flags, "_rejected", lambda environment: pytest.fail("started"))
  xla_flags.check({"XLA_FLAGS": "--xla_dump_to='/tmp/a b' --xla_gpu_autotune_level=2"})
  xla_flags.check({"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"})


def test_flags_of_a_file_are_checked_and_tensorflow_decides(monkeypatch, tmp_path):
  (tmp_path / "flags").write_text("--xla_dump_to=/tmp\n--xla_no_such_flag 'open")
  environment = {"XLA_FLAGS": str(tmp_path / "flags")}
  monkeypatch.setattr(xla_flags, "_rejected", lambda environment: None)
  xla_flags.check(environment)
  monkeypatch.setattr(xla_flags, "_rejected", lambda environment: "--xla_no_such_flag")
  with pytest.raises(UserError, match="rejects --xla_no_such_flag"):
    xla_flags.check(environment)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_flags_are_finite_numbers(value):
  main = "pass\nfrom absl import flags\nflags.DEFINE_float('seconds', 1.0, 'Time.')"
  done = run(main, f'"$PYTHON" -c "$PROGRAM" --seconds={value}')
  assert done.returncode == 2 and "flag --seconds=" in done.stderr, done.stderr
  assert "expected a finite number. --helpshort lists the flags." in done.stderr


def test_remote_addresses_are_no_local_inputs():
  main = "pass\nfrom absl import flags\nflags.DEFINE_list('files', [], 'Files.')"
  for arguments, named in (("--files=a,gs://b/c", "--files=gs://b/c"), ("s3://b", "s3://b")):
    program = f"from sasa_tf.bin import program\ndef main(argv):\n  {main}\n"
    program += "program.run(main, local_inputs=('files',))"
    done = subprocess.run(
      [sys.executable, "-c", program, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert f"error: {named}: expected a local path; received a remote one." in done.stderr


@pytest.mark.parametrize("flag", ["--help", "--helpshort"])
def test_help_whose_reader_is_gone_or_that_cannot_be_written(flag):
  command = f'"$PYTHON" -m sasa_tf.bin.report {flag}'
  done = run("pass", f"{command} | sleep 0; echo ${{PIPESTATUS[0]}}")
  assert done.stdout.strip() in ("141", "0", "1") and done.stderr == "", done.stderr
  done = run("pass", f"{command} > /dev/full")
  assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


def test_commands_whose_reader_is_gone(monkeypatch):
  done = run("pass", '"$PYTHON" -m sasa_tf.commandline | sleep 0; echo ${PIPESTATUS[0]}')
  assert done.stdout.strip() in ("141", "0") and done.stderr == "", done.stderr


def test_flag_files_that_never_end_are_named(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
    done = run("pass", f'"$PYTHON" -c "$PROGRAM" --flagfile={path}')
    assert done.returncode == 2 and f"--flagfile={path} is a directory, a pipe" in done.stderr


@pytest.mark.parametrize(
  ("content", "problem"),
  [
    ("[]", "received []"),
    (
      '{"floatx": "float8"}',
      "expected float16, float32 or float64 for 'floatx'; received 'float8'",
    ),
    ('{"floatx": []}', "expected float16, float32 or float64 for 'floatx'; received '[]'"),
    ('{"epsilon": 1}', "expected a float for 'epsilon'"),
    ('{"image_data_format": null}', "expected channels_last or channels_first"),
    ("[" * 100_000, "nested too deeply"),
    (None, "it is a directory"),
  ],
)
def test_configurations_with_which_keras_cannot_be_imported(content, problem, tmp_path):
  if content is None:
    (tmp_path / "keras.json").mkdir()
  else:
    (tmp_path / "keras.json").write_text(content)
  done = run("print(1)", '"$PYTHON" -c "$PROGRAM"', KERAS_HOME=str(tmp_path))
  assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
  assert f"{tmp_path}/keras.json, the configuration of Keras, cannot be used: " in done.stderr
  assert problem in done.stderr


@pytest.mark.parametrize("content", ["", "{", '{"backend": "tensorflow", "epsilon": 1e-7}'])
def test_other_configurations_of_keras(content, tmp_path):
  (tmp_path / "keras.json").write_text(content)
  done = run("print(1)", '"$PYTHON" -c "$PROGRAM"', KERAS_HOME=str(tmp_path))
  assert done.stdout == "1\n", done.stderr
