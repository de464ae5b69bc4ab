"""`ops.kernel_status` reports which compiled kernels are usable."""

import pytest

from sasa_tf import ops
from sasa_tf.native import cache, library


@pytest.mark.parametrize(
  ("platforms", "reason", "reasons"),
  [
    ((), "not built", {"CPU": "not built", "CUDA": "not built"}),
    (("CPU",), "built for CPUs only", {"CUDA": "built for CPUs only"}),
    (("CPU", "CUDA"), "", {}),
  ],
)
def test_reports_usable_platforms_and_reasons(monkeypatch, platforms, reason, reasons):
  monkeypatch.setattr(library, "load", lambda: library.Library(platforms, reason))
  status = ops.kernel_status()
  assert status.usable == platforms
  assert status.reasons == reasons
  assert status.library_path == str(cache.library_path())
  assert library.BUILD_COMMAND in str(status)
  for name in ("CPU", "CUDA"):
    assert f"{name}: {reasons.get(name, 'usable')}" in str(status)


def test_agrees_with_the_available_implementations():
  usable = "CPU" in ops.kernel_status().usable
  assert usable == ("fused" in ops.available_implementations())
