// Color ramps: a sequential one for weights, and a diverging one for position logits.

// From transparent deep violet over magenta and orange to pale yellow, by increasing lightness.
const HEAT = [
  [38, 20, 72], [84, 24, 112], [133, 32, 118], [182, 48, 101],
  [224, 79, 73], [247, 128, 46], [253, 184, 66], [254, 240, 168],
];
const NEGATIVE = [44, 104, 168];
const POSITIVE = [196, 78, 24];
const NEUTRAL = [245, 242, 238];

function between(low, high, share) {
  return low.map((value, i) => Math.round(value + (high[i] - value) * share));
}

/** Returns [red, green, blue] of a value from 0 to 1. */
export function heat(value) {
  const place = Math.max(0, Math.min(1, value)) * (HEAT.length - 1);
  const index = Math.min(HEAT.length - 2, Math.floor(place));
  return between(HEAT[index], HEAT[index + 1], place - index);
}

/** Returns [red, green, blue] of a value from -1 to 1. */
export function diverging(value) {
  const share = Math.max(-1, Math.min(1, value));
  return between(NEUTRAL, share < 0 ? NEGATIVE : POSITIVE, Math.abs(share));
}

/** Draws values [rows, columns] into a canvas of that size. */
export function paint(canvas, values, rows, columns, color) {
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  values.forEach((value, i) => {
    pixels.data.set(color(value), 4 * i);
    pixels.data[4 * i + 3] = 255;
  });
  context.putImageData(pixels, 0, 0);
}

/** Returns values relative to the largest. */
export function relative(values) {
  const largest = values.reduce((most, value) => Math.max(most, value), 1e-12);
  return values.map((value) => value / largest);
}

export function drawRamps(sequential, signed) {
  const steps = Float32Array.from({length: 160}, (_, i) => i / 159);
  paint(sequential, steps, 1, 160, heat);
  paint(signed, steps.map((value) => 2 * value - 1), 1, 160, diverging);
}
