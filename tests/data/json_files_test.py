import json
import math

import pytest

from sasa_tf.data.inputs.json_files import read_json
from sasa_tf.data.inputs.text_files import TextError

CONTENT = {"a": [1, 2.5, "猫", None]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_reads_every_unicode_encoding(tmp_path, encoding):
  (tmp_path / "a.json").write_bytes(json.dumps(CONTENT, ensure_ascii=False).encode(encoding))
  assert read_json(tmp_path / "a.json") == CONTENT


def test_endless_integers_are_infinite_and_others_unchanged(tmp_path):
  digits = "9" * 5000  # More than Python converts.
  (tmp_path / "a.json").write_text(f"[{digits}, -{digits}, 12, {'1' * 250}]")
  assert read_json(tmp_path / "a.json") == [math.inf, -math.inf, 12, int("1" * 250)]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "not valid JSON"),
    (b"[1, 2", "not valid JSON"),
    (b"[" * 200_000, "not valid JSON .nested too deeply"),
    (b'{"a":' * 200_000, "not valid JSON .nested too deeply"),
    (b'["caf\xe9"]', "byte 0xe9 at offset 5"),
    (b"\x89PNG", "not UTF-8 text"),
  ],
)
def test_other_content_raises(tmp_path, content, message):
  (tmp_path / "a.json").write_bytes(content)
  with pytest.raises(TextError, match=message):
    read_json(tmp_path / "a.json")
