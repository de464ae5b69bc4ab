// The windows of one image: decoding, and statistics of single windows.

import {windowAxis} from "explorer/geometry";
import {nearestIndex} from "explorer/state";

/** Decodes the bytes of an image: the windows of each layer, then the rollout. */
export async function loadWeights(layers, image) {
  const packed = Uint8Array.from(atob(image.bytes), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let offset = 0;
  const take = (length) => bytes.subarray(offset, (offset += length));
  const windows = layers.map((layer) => {
    const window = layer.kernel[0] * layer.kernel[1];
    return take(layer.rows.length * layer.columns.length * layer.heads * window);
  });
  const {rollout} = image;
  const maps = rollout && take(product(rollout.size) * product(rollout.mapSize));
  return {windows, rollout: maps};
}

/** Returns the query of the layer's grid nearest to a pixel of the layer: indices and pixel. */
export function gridQuery(layer, [row, column]) {
  const indices = [nearestIndex(layer.rows, row), nearestIndex(layer.columns, column)];
  return {indices, pixel: [layer.rows[indices[0]], layer.columns[indices[1]]]};
}

/** Returns the weights of a window, which sum to 1; head null is the mean over the heads. */
export function windowOf(layer, bytes, [rowIndex, columnIndex], head) {
  const size = layer.kernel[0] * layer.kernel[1];
  const result = new Float32Array(size);
  const first = (rowIndex * layer.columns.length + columnIndex) * layer.heads * size;
  const heads = head === null ? [...Array(layer.heads).keys()] : [head];
  for (const each of heads) {
    const start = first + each * size;
    let sum = 0;
    for (let i = 0; i < size; i++) sum += bytes[start + i] ** 2;
    for (let i = 0; i < size; i++) result[i] += bytes[start + i] ** 2 / (sum * heads.length);
  }
  return result;
}

/** Returns the statistics of a window at a pixel of the layer, distance in pixels of the image. */
export function windowStatistics(layer, weights, pixel) {
  const rows = windowAxis(layer, pixel[0], 0);
  const columns = windowAxis(layer, pixel[1], 1);
  let [entropy, distance, padding] = [0, 0, 0];
  weights.forEach((weight, i) => {
    const row = rows[Math.floor(i / columns.length)];
    const column = columns[i % columns.length];
    if (weight > 0) entropy -= weight * Math.log(weight);
    distance += weight * Math.hypot(
      (row - pixel[0]) * layer.stride[0], (column - pixel[1]) * layer.stride[1]);
    if (row < 0 || column < 0 || row >= layer.size[0] || column >= layer.size[1]) padding += weight;
  });
  return {entropy, distance, padding};
}

/** Returns what the queries of a box attend to: the sum of their windows, by pixel of the layer. */
export function boxAttention(layer, bytes, [top, left, bottom, right], head) {
  const map = new Float32Array(layer.size[0] * layer.size[1]);
  const inBox = (grid, stride, low, high) => {
    const inside = grid.map((value, index) => [index, value])
      .filter(([, value]) => (value + 0.5) * stride >= low && (value + 0.5) * stride <= high);
    return inside.length ? inside
      : [nearestIndex(grid, (low + high) / 2 / stride - 0.5)].map((index) => [index, grid[index]]);
  };
  for (const [rowIndex, row] of inBox(layer.rows, layer.stride[0], top, bottom)) {
    for (const [columnIndex, column] of inBox(layer.columns, layer.stride[1], left, right)) {
      const weights = windowOf(layer, bytes, [rowIndex, columnIndex], head);
      const rows = windowAxis(layer, row, 0);
      const columns = windowAxis(layer, column, 1);
      weights.forEach((weight, i) => {
        const [r, c] = [rows[Math.floor(i / columns.length)], columns[i % columns.length]];
        if (r >= 0 && c >= 0 && r < layer.size[0] && c < layer.size[1]) {
          map[r * layer.size[1] + c] += weight;
        }
      });
    }
  }
  return map;
}

/** Returns the rollout of a pixel of the image, by pixel of its map, relative to the largest. */
export function rolloutOf(image, bytes, [row, column]) {
  const {size, mapSize, imageSize} = image.rollout;
  const index = [row, column].map((value, axis) =>
    Math.min(size[axis] - 1, Math.floor((value / imageSize[axis]) * size[axis])));
  const length = product(mapSize);
  const start = (index[0] * size[1] + index[1]) * length;
  return Float32Array.from(bytes.subarray(start, start + length), (root) => (root / 255) ** 2);
}

const product = (values) => values.reduce((result, value) => result * value, 1);
