"""PTX text of a kernel: reduced to what matters, and turned into the body of inline assembly."""

from __future__ import annotations

import re

from sasa_tf.native.portable import KERNEL_NAME

# The oldest version of PTX with all instructions of the kernels (movmatrix). A driver rejects text
# of a newer version than its own, and nvcc writes its own version.
_VERSION = "7.8"


def normalize(text: str) -> str:
  """Returns nvcc's PTX without comments, hints, unused globals and names that depend on paths."""
  stripped = (" ".join(line.partition("//")[0].split()) for line in text.splitlines())
  lines = [line for line in stripped if line and not line.startswith(".pragma")]
  text = "\n".join(lines) + "\n"
  text = re.sub(r"_ZZ\w*6memory\b", f"{KERNEL_NAME}_memory", text)
  text = re.sub(r"^\.version .*$", f".version {_VERSION}", text, flags=re.MULTILINE)
  for name in re.findall(r"^\.global [^;\[]* (_Z\w+)\[\d+\][^;]*;$", text, flags=re.MULTILINE):
    if len(re.findall(rf"\b{name}\b", text)) > 1:
      raise ValueError(f"the kernel reads the global array {name}, which text cannot hold")
    text = re.sub(rf"^\.global [^;]*\b{name}\b[^;]*;\n", "", text, flags=re.MULTILINE)
  return text


def threads(text: str) -> int:
  """Returns the number of threads of a CTA."""
  found = re.search(r"^\.maxntid (\d+)", text, flags=re.MULTILINE)
  if not found:
    raise ValueError(f"the kernel has no directive .maxntid: {text[:500]}")
  return int(found[1])


def inline_assembly(text: str, operands: int) -> str:
  """Returns the kernel's body as LLVM inline assembly of one line.

  Args:
    text: of `normalize`.
    operands: the number of pointers that the kernel takes. They are the operands $1 to $N; the
      result $0 is a register that is set to 0.
  """
  body = text[text.index("{\n") + 2 : text.rindex("}")].strip()
  # In the block of the assembly, names of the surrounding function must keep their meaning.
  body = re.sub(r"%(p|rs|r|rd|f|fd)(?=[0-9<])", r"%sasa_\1", body)
  body = body.replace("$L__", "L__")
  for index in range(operands):
    parameter = rf"\[{KERNEL_NAME}_param_{index}\];"
    body = re.sub(rf"ld\.param\.\w+ (\S+), {parameter}", rf"mov.b64 \1, ${index + 1};", body)
  body = body.removesuffix("ret;")
  if re.search(r"\bret;|_param_|[\"\\]", body):
    raise ValueError("nvcc wrote PTX of an unexpected form, which inline assembly cannot hold")
  return " ".join(f"{{ {body} mov.u32 $0, 0; }}".split())
