"""Broken content of text files, and random changes of valid content."""

import random

# What a file of YAML, JSON or XML with keys may hold after a crash, or by mistake.
BROKEN = {
  "empty": b"",
  "spaces": b" \n\n",
  "comment": b"# comment\n",
  "null": b"null",
  "number": b"3",
  "text": b"text",
  "list": b"[1, 2]",
  "truncated": b'{"experiment": "sasa_res',
  "nul": b"\0",
  "binary": b"\xff\x00\xfe",
  "not utf-8": b"\x80\x81",
  "image": b"\x89PNG\r\n\x1a\n\0\0",
  "utf-16": "a: ä".encode("utf-16"),
  "python object": b"!!python/object/apply:os.system ['touch planted']",
  "nested": b"[" * 100_000,
}


def changed_bytes(content: bytes, generator: random.Random) -> bytes:
  """Returns a copy with bytes replaced, inserted, removed, repeated or cut off."""
  changed = bytearray(content)
  for _ in range(generator.randrange(4)):
    start = generator.randrange(len(changed) + 1)
    stop = min(start + generator.choice((0, 1, 1, 2, 8, 99)), len(changed))
    new = generator.choice(
      (b"", b"\0", b"\xff", b"\n", b"<", b"]", b"&a;", b"9" * 999, changed[start:stop] * 2)
    )
    changed[start:stop] = new
  return bytes(changed[: generator.choice((None, None, None, len(changed) // 2))])


def changed_values(value, hostile, generator: random.Random, fraction: float = 0.04):
  """Returns a copy of nested values, some replaced by hostile ones or removed."""
  if generator.random() < fraction:
    return generator.choice(hostile)
  if isinstance(value, dict):
    kept = {key: part for key, part in value.items() if generator.random() > fraction / 2}
    return {k: changed_values(part, hostile, generator, fraction) for k, part in kept.items()}
  if isinstance(value, (list, tuple)):
    return [changed_values(part, hostile, generator, fraction) for part in value]
  return value
