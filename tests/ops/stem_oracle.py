"""The stem's equations (paper Sec. 3.2, App. A.1) as nested NumPy loops in float64."""

import numpy as np


def block_and_position(pixel, size, block):
  """Returns (block, position in it) of a coordinate; padding to full blocks is on both sides."""
  missing = -(-size // block) * block - size
  return divmod(pixel + missing // 2, block)


def mixture_weights(embedding_rows, embedding_columns, mixture_vectors):
  """p(a, b, m), [block rows, block columns, M]."""
  mixtures = len(mixture_vectors)
  weights = np.zeros([len(embedding_rows), len(embedding_columns), mixtures])
  for a, b in np.ndindex(*weights.shape[:2]):
    position = (embedding_rows[a] + embedding_columns[b]).astype(np.float64)
    exponentials = np.exp([position @ mixture_vectors[m] for m in range(mixtures)])
    weights[a, b] = exponentials / exponentials.sum()
  return weights


def value_mixture(inputs, value_kernels, embedding_rows, embedding_columns, mixture_vectors):
  """v_ab = (sum_m p(a, b, m) W_V^m) x_ab, [B, H, W, filters]."""
  weights = mixture_weights(embedding_rows, embedding_columns, mixture_vectors)
  batch, height, width, _ = inputs.shape
  values = np.zeros([batch, height, width, value_kernels.shape[2]])
  for n, y, x, m in np.ndindex(batch, height, width, len(value_kernels)):
    _, a = block_and_position(y, height, len(embedding_rows))
    _, b = block_and_position(x, width, len(embedding_columns))
    values[n, y, x] += weights[a, b, m] * (inputs[n, y, x].astype(np.float64) @ value_kernels[m])
  return values


def block_attention_weights(query, key, rows=None, columns=None, *, block_size, scale=1.0):
  """[B, H, W, N, block rows, block columns]; rows and columns None: no relative term."""
  batch, height, width, heads, _ = query.shape
  weights = np.zeros([batch, height, width, heads, *block_size])
  for n, i, j, h in np.ndindex(batch, height, width, heads):
    q = scale * query[n, i, j, h].astype(np.float64)
    own = (
      block_and_position(i, height, block_size[0])[0],
      block_and_position(j, width, block_size[1])[0],
    )
    logits = np.full(block_size, -np.inf)
    for y, x in np.ndindex(height, width):
      block_row, a = block_and_position(y, height, block_size[0])
      block_column, b = block_and_position(x, width, block_size[1])
      if (block_row, block_column) != own:
        continue
      logits[a, b] = q @ key[n, y, x, h].astype(np.float64)
      if rows is not None:
        r = np.concatenate([rows[y - i + block_size[0] - 1], columns[x - j + block_size[1] - 1]])
        logits[a, b] += q @ r.astype(np.float64)
    exponentials = np.exp(logits - logits.max())
    weights[n, i, j, h] = exponentials / exponentials.sum()
  return weights


def block_attention(query, key, value, rows=None, columns=None, *, block_size, scale=1.0):
  """[B, H, W, N, D]."""
  weights = block_attention_weights(query, key, rows, columns, block_size=block_size, scale=scale)
  batch, height, width, heads, _ = value.shape
  output = np.zeros(value.shape)
  for n, i, j, h in np.ndindex(batch, height, width, heads):
    own = (
      block_and_position(i, height, block_size[0])[0],
      block_and_position(j, width, block_size[1])[0],
    )
    for y, x in np.ndindex(height, width):
      block_row, a = block_and_position(y, height, block_size[0])
      block_column, b = block_and_position(x, width, block_size[1])
      if (block_row, block_column) == own:
        output[n, i, j, h] += weights[n, i, j, h, a, b] * value[n, y, x, h].astype(np.float64)
  return output


def numeric_gradients(function, sources, upstream, step=1e-5):
  """Returns central differences of sum(upstream * function(*sources)) for float64 sources."""
  gradients = []
  for source in sources:
    gradient = np.zeros_like(source)
    for index in np.ndindex(*source.shape):
      original, sums = source[index], []
      for shifted in (original + step, original - step):
        source[index] = shifted
        sums.append(np.sum(upstream * function(*sources)))
      source[index] = original
      gradient[index] = (sums[0] - sums[1]) / (2 * step)
    gradients.append(gradient)
  return gradients
