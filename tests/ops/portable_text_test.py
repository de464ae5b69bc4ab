"""The text of kernels for exported models."""

import pytest

from sasa_tf.errors import UserError
from sasa_tf.native import portable
from sasa_tf.ops.portable import ptx
from sasa_tf.ops.portable.custom_call import custom_call_module
from sasa_tf.ops.portable.kernel import ALL_TENSOR_CORES, PortableKernel
from sasa_tf.ops.portable.tile_configs import TileConfig, tile_config
from sasa_tf.ops.portable.triton_ir import triton_module
from sasa_tf.ops.window import WindowGeometry
from tests.ops.portable_ptx import PTX

SEVEN = WindowGeometry((7, 7), (1, 1), "zero")
MASKED = WindowGeometry((3, 5), (2, 1), "mask")


def kernel(**changes):
  arguments = {
    "dtype": "bfloat16",
    "image": (14, 14),
    "heads": 2,
    "head_dim": 16,
    "geometry": SEVEN,
    "scale": 0.25,
  }
  return PortableKernel(**(arguments | changes))


def test_normalized_ptx_does_not_depend_on_paths_and_versions():
  text = ptx.normalize(PTX)
  assert text.startswith(".version 7.8\n.target sm_80\n")
  for removed in ("//", "pragma", "kZeros", "_ZZ", "\t"):
    assert removed not in text
  assert ".shared .align 1024 .b8 sasa_local_attention_memory[64];" in text
  assert ptx.threads(text) == 64


def test_ptx_that_reads_a_global_array_is_rejected():
  used = PTX.replace("[%rd1]", "[_ZN51_INTERNAL_6bcdac03_20_portable_forward_cuh_6kZerosE]")
  with pytest.raises(ValueError, match="reads the global array"):
    ptx.normalize(used)


def test_inline_assembly_takes_pointers_and_keeps_names_apart():
  assembly = ptx.inline_assembly(ptx.normalize(PTX), 2)
  assert assembly == (
    "{ .reg .pred %sasa_p<2>; .reg .b32 %sasa_r<3>; .reg .b64 %sasa_rd<5>; "
    ".shared .align 1024 .b8 sasa_local_attention_memory[64]; "
    "mov.b64 %sasa_rd1, $1; mov.b64 %sasa_rd2, $2; mov.u32 %sasa_r1, %tid.x; "
    "setp.gt.s32 %sasa_p1, %sasa_r1, 0; @%sasa_p1 bra L__BB0_2; "
    "ld.global.u32 %sasa_r2, [%sasa_rd1]; st.global.u32 [%sasa_rd2], %sasa_r2; "
    "L__BB0_2: mov.u32 $0, 0; }"
  )


def test_unexpected_ptx_is_rejected():
  early_return = PTX.replace("@%p1 bra \t$L__BB0_2;", "@%p1 ret;")
  with pytest.raises(ValueError, match="unexpected form"):
    ptx.inline_assembly(ptx.normalize(early_return), 2)


def test_triton_module_runs_the_assembly_once_per_thread():
  text = triton_module("mov.u32 $0, 0;", ["bf16", "i32"], 64)
  assert "%array0: !tt.ptr<bf16> {tt.divisibility = 16 : i32}" in text
  assert 'tt.elementwise_inline_asm "mov.u32 $0, 0;" {constraints = "=r,l,l"' in text
  assert ": tensor<64xi64>, tensor<64xi64> -> tensor<64xi32>" in text


@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 11])
@pytest.mark.parametrize("head_dim", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("width", [7, 14, 28, 56, 200])
def test_tile_configurations_suit_triton(kernel_size, head_dim, width):
  config = tile_config(kernel_size, head_dim, width)
  if (kernel_size, head_dim) == (11, 64):
    assert config is None
    return
  assert config.warps & (config.warps - 1) == 0
  mma_rows = 2 if kernel_size % 4 == 3 else 4
  assert config.tile_columns % (16 // (2 if head_dim <= 16 else 1) // mma_rows) == 0


@pytest.mark.parametrize("head_groups", [1, 3, 4, 7])
def test_grid_is_a_multiple_of_the_head_groups(head_groups):
  grid = TileConfig(4, 16, 4).grid(head_groups)
  assert grid % head_groups == 0
  assert 132 * 4 - head_groups < grid <= 132 * 4


def test_tensor_cores_are_used_for_windows_of_7(monkeypatch):
  three = kernel(geometry=WindowGeometry((3, 3), (1, 1), "zero"))
  monkeypatch.delenv(ALL_TENSOR_CORES, raising=False)
  assert not three.uses_tensor_cores
  monkeypatch.setenv(ALL_TENSOR_CORES, "all")
  assert three.uses_tensor_cores
  assert kernel().uses_tensor_cores
  assert not kernel(dtype="float32").uses_tensor_cores
  assert not kernel(geometry=MASKED).uses_tensor_cores
  assert not kernel(head_dim=24).uses_tensor_cores


def test_missing_nvcc_is_named(monkeypatch):
  monkeypatch.setattr(portable, "find_nvcc", lambda: None)
  with pytest.raises(UserError, match=r"nvcc was not found.*--gpu_kernels=none"):
    _ = kernel(scale=0.123).ptx


def test_failing_nvcc_is_shown(monkeypatch, tmp_path):
  nvcc = tmp_path / "nvcc"
  nvcc.write_text("#!/bin/sh\necho no such architecture >&2\nexit 1\n")
  nvcc.chmod(0o755)
  monkeypatch.setattr(portable, "find_nvcc", lambda: str(nvcc))
  with pytest.raises(UserError, match="no such architecture"):
    _ = kernel(scale=0.124).ptx


@pytest.fixture
def fake_ptx(monkeypatch):
  monkeypatch.setattr(portable, "compile_kernel", lambda macros: PTX)


def test_ptx_call(fake_ptx):
  text = custom_call_module(kernel(has_relative=False), "ptx")
  assert '@"__gpu$xla.gpu.ptx"(%argument0, %batch, %shape0)' in text
  assert 'kernel_type = "ptx"' in text
  assert "block_x = 64" in text
  assert "output_indices = [2]" in text
  assert "tensor<?x14x14x3x2x16xbf16>" in text


def test_triton_call_escapes_text_twice(fake_ptx):
  text = custom_call_module(kernel(has_relative=False), "triton")
  assert '@"__gpu$xla.gpu.triton"' in text
  assert "num_warps = 2 : i32" in text
  assert "tt.elementwise_inline_asm \\22{ .reg" in text
  (line,) = (line for line in text.splitlines() if "custom_call" in line)
  assert line.count('"') % 2 == 0


def test_pooled_output_is_smaller(fake_ptx):
  assert "tensor<?x7x7x2x16xbf16>" in custom_call_module(kernel(pool_size=2), "ptx")


needs_nvcc = pytest.mark.skipif(portable.find_nvcc() is None, reason="nvcc is not installed")


@needs_nvcc
@pytest.mark.parametrize("changes", [{}, {"dtype": "float32"}], ids=["MMA", "SIMT"])
def test_text_is_deterministic(changes):
  first = kernel(**changes)
  portable._compile.cache_clear()
  text, again = first.ptx, kernel(**changes)
  portable._compile.cache_clear()
  assert again.ptx == text
  assert again.triton_ir == first.triton_ir
  assert text.count(".entry") == 1
  assert text.count("ld.param.u64") == 5
  assert ("mma.sync" in text) == first.uses_tensor_cores


@needs_nvcc
def test_shared_memory_fits_the_static_limit():
  for head_dim, width in ((8, 56), (16, 56), (16, 28), (32, 28), (32, 14), (64, 14)):
    text = kernel(head_dim=head_dim, image=(14, width)).ptx
    assert int(text.partition("_memory[")[2].partition("]")[0]) <= 48 * 1024


@needs_nvcc
def test_triton_accepts_the_text(tmp_path):
  triton = pytest.importorskip("triton", reason="triton is not installed")
  from triton.backends.compiler import GPUTarget

  source = kernel()
  path = tmp_path / "kernel.ttir"
  path.write_text(source.triton_ir)
  options = {"num_warps": source.warps, "num_stages": 1}
  compiled = triton.compile(str(path), target=GPUTarget("cuda", 80, 32), options=options)
  assert "mma.sync" in compiled.asm["ptx"]


def test_macros_define_all_that_the_source_uses():
  source = portable._SOURCE.read_text()
  names = set(kernel().macros) | set(kernel(dtype="float32").macros)
  for name in names:
    assert name in source, name


def test_compile_command_names_the_architecture(monkeypatch):
  monkeypatch.setattr(portable, "find_nvcc", lambda: "nvcc")
  command = portable.compile_command({"SASA_HEADS": 8}, "out.ptx")
  assert {"-arch=compute_80", "-DSASA_HEADS=8"} < set(command)
  assert command[-2:] == ["-o", "out.ptx"]
