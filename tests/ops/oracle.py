"""Eq. 3 of the paper as nested NumPy loops in float64, the ground truth of the tests."""

import numpy as np


def local_attention_weights(
  query, key, rows, columns, *, kernel_size, dilation_rate=(1, 1), border="zero", scale=1.0
):
  """[B, H, W, N, K, K]; key None: no content term; rows and columns None: no relative term."""
  batch, height, width, heads, _ = query.shape
  (row_kernel, column_kernel), (row_rate, column_rate) = kernel_size, dilation_rate
  weights = np.zeros([batch, height, width, heads, row_kernel, column_kernel])
  for b, i, j, n in np.ndindex(batch, height, width, heads):
    q = scale * query[b, i, j, n].astype(np.float64)
    logits = np.full([row_kernel, column_kernel], -np.inf)
    for r, c in np.ndindex(row_kernel, column_kernel):
      y = i + (r - row_kernel // 2) * row_rate
      x = j + (c - column_kernel // 2) * column_rate
      inside = 0 <= y < height and 0 <= x < width
      if not inside and border == "mask":
        continue
      logit = 0.0
      if key is not None and inside:
        logit += q @ key[b, y, x, n].astype(np.float64)
      if rows is not None:
        logit += q @ np.concatenate([rows[r], columns[c]]).astype(np.float64)
      logits[r, c] = logit
    exponentials = np.exp(logits - logits.max())
    weights[b, i, j, n] = exponentials / exponentials.sum()
  return weights


def local_attention(query, key, value, rows=None, columns=None, **geometry):
  """[B, H, W, N, D]."""
  weights = local_attention_weights(query, key, rows, columns, **geometry)
  _, height, width, _, row_kernel, column_kernel = weights.shape
  row_rate, column_rate = geometry.get("dilation_rate", (1, 1))
  output = np.zeros(value.shape)
  for b, i, j, n, r, c in np.ndindex(*weights.shape):
    y = i + (r - row_kernel // 2) * row_rate
    x = j + (c - column_kernel // 2) * column_rate
    if 0 <= y < height and 0 <= x < width:
      output[b, i, j, n] += weights[b, i, j, n, r, c] * value[b, y, x, n].astype(np.float64)
  return output


def halo_attention(query, key, value, rows=None, columns=None, *, kernel_size, border="zero"):
  """HaloNet's relaxation: [B, H, W, N, D], each query attends to its block's tile of keys.

  Blocks are of the kernel's size; offsets outside the window use the embedding of its edge.
  """
  batch, height, width, heads, depth = query.shape
  (row_kernel, column_kernel), output = kernel_size, np.zeros(value.shape)
  for b, i, j, n in np.ndindex(batch, height, width, heads):
    q, logits, values = query[b, i, j, n], [], []
    top, left = i // row_kernel * row_kernel, j // column_kernel * column_kernel
    for y in range(top - row_kernel // 2, top + row_kernel + row_kernel // 2):
      for x in range(left - column_kernel // 2, left + column_kernel + column_kernel // 2):
        inside = 0 <= y < height and 0 <= x < width
        if not inside and border == "mask":
          continue
        logit = q @ key[b, y, x, n] if inside else 0.0
        if rows is not None:
          r = np.clip(y - i + row_kernel // 2, 0, row_kernel - 1)
          c = np.clip(x - j + column_kernel // 2, 0, column_kernel - 1)
          logit += q @ np.concatenate([rows[r], columns[c]])
        logits.append(logit)
        values.append(value[b, y, x, n] if inside else np.zeros(depth))
    weights = np.exp(np.array(logits) - max(logits))
    output[b, i, j, n] = weights / weights.sum() @ np.array(values)
  return output
