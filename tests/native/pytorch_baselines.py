"""PyTorch baselines on the GPU: FlexAttention with the same window, and the 3x3 convolution.

  python -m tests.native.pytorch_baselines

This is a program, not a test. It needs PyTorch and an NVIDIA GPU. FlexAttention computes the same
local window with the same trained row and column terms, so its output equals `local_attention_2d`
with border="mask"; the program checks it against dense attention before it measures. Times are of
forward and backward pass together, measured with CUDA events.
"""

import itertools
import json
import sys

import torch
from torch.nn.attention import flex_attention as flex

SHAPES = ((56, 64), (28, 128), (14, 256), (7, 512))  # pixels along a side, channels
BATCH, HEADS, KERNEL, RADIUS = 64, 8, 7, 3
MIN_HEAD_DIM = 16  # of FlexAttention


def milliseconds(step, repetitions=20, rounds=7):
  """Returns the median time of a step over several rounds."""
  for _ in range(3):
    step()
  times = []
  start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
  for _ in range(rounds):
    start.record()
    for _ in range(repetitions):
      step()
    end.record()
    end.synchronize()
    times.append(start.elapsed_time(end) / repetitions)
  return sorted(times)[rounds // 2]


def convolution(size, channels):
  """Returns a step of the 3x3 convolution, forward and backward, channels last."""
  layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
  layer = layer.cuda().bfloat16().to(memory_format=torch.channels_last)
  x = torch.randn(BATCH, channels, size, size, device="cuda", dtype=torch.bfloat16)
  x = x.to(memory_format=torch.channels_last).requires_grad_()
  upstream = torch.randn_like(x)

  def step():
    torch.autograd.grad(layer(x), [x, layer.weight], upstream)

  return step


class LocalAttention:
  """Local attention with FlexAttention and its block mask."""

  def __init__(self, size, head_dim, positions):
    """Creates the mask; with `positions`, q.r is added to the logits."""
    self.size, self.positions = size, positions
    self.padding = max(0, MIN_HEAD_DIM - head_dim)
    self.scale = 1.0

    def inside(batch, head, query, key):
      rows = abs(query // size - key // size) <= RADIUS
      return rows & (abs(query % size - key % size) <= RADIUS)

    tokens = size * size
    self.mask = flex.create_block_mask(inside, None, None, tokens, tokens, device="cuda")
    # Otherwise the compiler reaches its recompile limit after a few sizes, and PyTorch computes all
    # logits instead.
    torch.compiler.reset()
    self.attend = torch.compile(flex.flex_attention, dynamic=False)

  def __call__(self, query, key, value, rows, columns):
    """Tensors [B, N, H * W, D], tables [K, D / 2]."""
    size, half = self.size, query.shape[-1] // 2
    add_terms = None
    if self.positions:
      of_rows = query[..., :half] @ rows.T  # [B, N, H * W, K]
      of_columns = query[..., half:] @ columns.T

      def add_terms(score, batch, head, q, k):
        # Outside the window the mask applies; the index only has to be valid.
        row = torch.clamp(k // size - q // size + RADIUS, 0, KERNEL - 1)
        column = torch.clamp(k % size - q % size + RADIUS, 0, KERNEL - 1)
        return score + of_rows[batch, head, q, row] + of_columns[batch, head, q, column]

    if self.padding:
      query, key, value = (
        torch.nn.functional.pad(t, (0, self.padding)) for t in (query, key, value)
      )
    result = self.attend(
      query, key, value, score_mod=add_terms, block_mask=self.mask, scale=self.scale
    )
    return result[..., : result.shape[-1] - self.padding]


def dense(size, query, key, value, rows, columns):
  """Returns the same attention computed from all logits, in float32."""
  query, key, value, rows, columns = (t.float() for t in (query, key, value, rows, columns))
  pixel = torch.arange(size * size, device="cuda")
  dy = pixel[None] // size - pixel[:, None] // size
  dx = pixel[None] % size - pixel[:, None] % size
  relative = torch.cat(
    [
      rows[(dy + RADIUS).clamp(0, KERNEL - 1)],
      columns[(dx + RADIUS).clamp(0, KERNEL - 1)],
    ],
    -1,
  )
  logits = query @ key.mT + torch.einsum("bnqd,qkd->bnqk", query, relative)
  outside = (dy.abs() > RADIUS) | (dx.abs() > RADIUS)
  return logits.masked_fill(outside, -torch.inf).softmax(-1) @ value


def tensors(batch, size, head_dim):
  """Returns query, key, value and both tables, with gradients, and an upstream gradient."""
  make = lambda *shape: torch.randn(*shape, device="cuda", dtype=torch.bfloat16)  # noqa: E731
  maps = [make(batch, HEADS, size * size, head_dim) for _ in range(3)]
  maps[0] *= head_dim**-0.5
  tables = [make(KERNEL, head_dim // 2) for _ in range(2)]
  return [t.detach().requires_grad_() for t in (*maps, *tables)], make(*maps[0].shape)


def check():
  """Exits if FlexAttention differs from dense attention."""
  size, head_dim = 14, 32
  inputs, upstream = tensors(2, size, head_dim)
  found = LocalAttention(size, head_dim, True)(*inputs)
  expected = dense(size, *inputs)
  pairs = [(found.float(), expected)]
  pairs += zip(
    torch.autograd.grad(found, inputs, upstream),
    torch.autograd.grad(expected, inputs, upstream.float()),
    strict=True,
  )
  for a, b in pairs:
    error = ((a.float() - b.float()).norm() / b.float().norm()).item()
    if error > 3e-2:
      sys.exit(f"FlexAttention differs from dense attention by {error:.1e}")


def main():
  """Prints one line of JSON per shape."""
  torch._dynamo.config.fail_on_recompile_limit_hit = True
  check()
  print(json.dumps({"torch": torch.__version__, "gpu": torch.cuda.get_device_name()}))
  for (size, channels), positions in itertools.product(SHAPES, (False, True)):
    head_dim = channels // HEADS
    inputs, upstream = tensors(BATCH, size, head_dim)
    attention = LocalAttention(size, head_dim, positions)
    wanted = inputs if positions else inputs[:3]

    def step(attention=attention, inputs=inputs, wanted=wanted, upstream=upstream):
      torch.autograd.grad(attention(*inputs), wanted, upstream)

    row = {"shape": f"{size}x{size}x{channels}", "positions": positions}
    row["flex_attention_ms"] = round(milliseconds(step, repetitions=5), 3)
    row["conv3x3_ms"] = round(milliseconds(convolution(size, channels)), 4)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
  main()
