// Positions of a layer's pixels and windows, as in sasa_tf/analysis/attention/geometry.py.

/** Returns the pixel of the layer's input that covers a pixel of the image. */
export function layerPixel(layer, [row, column]) {
  return [
    Math.min(layer.size[0] - 1, Math.floor(row / layer.stride[0])),
    Math.min(layer.size[1] - 1, Math.floor(column / layer.stride[1])),
  ];
}

/** Returns the positions of a window along one axis. */
export function windowAxis(layer, pixel, axis) {
  const length = layer.kernel[axis];
  if (!layer.isBlock) {
    const first = pixel - layer.dilation[axis] * Math.floor(length / 2);
    return Array.from({length}, (_, i) => first + layer.dilation[axis] * i);
  }
  const size = layer.size[axis];
  const above = Math.floor((Math.ceil(size / length) * length - size) / 2);
  const first = Math.floor((pixel + above) / length) * length - above;
  return Array.from({length}, (_, i) => first + i);
}

/** Returns [top, left, height, width] of a layer's pixel in the image. */
export function rectangle(layer, row, column) {
  const [high, wide] = layer.stride;
  return [row * high, column * wide, high, wide];
}
