// The image with the heat map of the query, and its mouse, touch and keyboard input.

import {heat, relative} from "explorer/colors";
import {layerPixel, rectangle, windowAxis} from "explorer/geometry";
import {boxAttention, gridQuery, rolloutOf, windowOf} from "explorer/weights";

// Pixels of the canvas along its longer side, whatever the size of the image.
const RESOLUTION = 1120;

const KEYS = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};

export function createStage(stage, canvas, state) {
  const photos = state.data.images.map((image) => {
    const photo = new Image();
    photo.src = image.source;
    photo.decode().then(() => state.set({}));
    return photo;
  });
  listen(stage, canvas, state);
  return () => {
    const {image} = state;
    const scale = RESOLUTION / Math.max(image.height, image.width);
    const size = [Math.round(image.width * scale), Math.round(image.height * scale)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.imageSmoothingEnabled = scale < 8;
    context.drawImage(photos[state.imageIndex], 0, 0, image.width, image.height);
    if (!state.weights) return;
    if (state.view === "rollout") drawRollout(context, state);
    else if (state.detection !== null) drawBoxAttention(context, state);
    else drawWindow(context, state, scale);
    if (image.detections.length) drawBoxes(context, state, scale);
    if (state.view === "rollout" && state.detection === null) drawQuery(context, state, scale);
    stage.setAttribute("aria-label", `Image ${image.name}, query row ${state.query[0]}, ` +
      `column ${state.query[1]}`);
  };
}

function dim(context, image, opacity) {
  context.fillStyle = `rgb(14 10 20 / ${opacity})`;
  context.fillRect(0, 0, image.width, image.height);
}

/** Fills a rectangle with the color of a value from 0 to 1; small values are more transparent. */
function fill(context, value, opacity, [top, left, height, width]) {
  context.fillStyle = `rgb(${heat(value).join(" ")} / ${Math.min(0.86, opacity)})`;
  context.fillRect(left, top, width, height);
}

function drawWindow(context, state, scale) {
  const {layer, image} = state;
  const {indices, pixel} = gridQuery(layer, layerPixel(layer, state.query));
  const weights = relative(
    windowOf(layer, state.weights.windows[state.layerIndex], indices, state.head));
  const rows = windowAxis(layer, pixel[0], 0);
  const columns = windowAxis(layer, pixel[1], 1);
  dim(context, image, 0.22);
  weights.forEach((weight, i) => {
    fill(context, weight, 0.25 + 0.75 * weight,
      rectangle(layer, rows[Math.floor(i / columns.length)], columns[i % columns.length]));
  });
  const [top, left] = rectangle(layer, rows[0], columns[0]);
  const [bottom, right, high, wide] = rectangle(layer, rows.at(-1), columns.at(-1));
  outline(context, scale, [top, left, bottom + high - top, right + wide - left], "rgb(255 255 255 / .55)", 1.5);
  outline(context, scale, rectangle(layer, ...pixel), "#fff", 3.5);
}

function drawMap(context, image, values, [rows, columns], [height, width]) {
  dim(context, image, 0.45);
  relative(values).forEach((value, i) => {
    if (value < 1e-3) return;
    const root = Math.sqrt(value);
    const corner = [Math.floor(i / columns) * height, (i % columns) * width];
    fill(context, root, 1.3 * root, [...corner, height, width]);
  });
}

function drawBoxAttention(context, state) {
  const {layer, image} = state;
  const map = boxAttention(layer, state.weights.windows[state.layerIndex],
    image.detections[state.detection].box, state.head);
  drawMap(context, image, map, layer.size, layer.stride);
}

function drawRollout(context, state) {
  const {image} = state;
  const {mapSize, imageSize} = image.rollout;
  const values = rolloutOf(image, state.weights.rollout, state.query);
  drawMap(context, image, values, mapSize, imageSize.map((size, axis) => size / mapSize[axis]));
}

function drawBoxes(context, state, scale) {
  state.image.detections.forEach(({box: [top, left, bottom, right]}, index) => {
    const selected = index === state.detection;
    if (selected) outline(context, scale, [top, left, bottom - top, right - left], "#fff", 4);
    else {
      context.strokeStyle = "rgb(255 255 255 / .5)";
      context.lineWidth = 1.5 / scale;
      context.strokeRect(left, top, right - left, bottom - top);
    }
  });
}

function drawQuery(context, state, scale) {
  const [row, column] = state.query;
  outline(context, scale, [row - 2, column - 2, 4, 4], "#fff", 3);
}

/** Draws a line around a rectangle, with a dark line around it so that it shows on any image. */
function outline(context, scale, [top, left, height, width], color, line) {
  for (const [style, lineWidth] of [["rgb(0 0 0 / .45)", line + 2], [color, line]]) {
    context.strokeStyle = style;
    context.lineWidth = lineWidth / scale;
    context.strokeRect(left, top, width, height);
  }
}

function listen(stage, canvas, state) {
  const move = (event) => {
    const box = canvas.getBoundingClientRect();
    state.moveTo(
      ((event.clientY - box.top) / box.height) * state.image.height,
      ((event.clientX - box.left) / box.width) * state.image.width);
  };
  // A selected detection stays while the mouse moves, until the next click.
  stage.addEventListener("pointermove", (event) => {
    if (state.detection === null && (event.pointerType === "mouse" || event.buttons)) move(event);
  });
  stage.addEventListener("pointerdown", move);
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const direction = KEYS[event.key];
    if (direction) {
      const steps = event.shiftKey ? 4 : 1;
      state.moveBy(direction[0] * steps, direction[1] * steps);
    } else if (event.key === "PageUp") state.selectLayer(state.layerIndex - 1);
    else if (event.key === "PageDown") state.selectLayer(state.layerIndex + 1);
    else if (event.key === "0" || event.key === "Escape") state.pin(null);
    else if (/^[1-9]$/.test(event.key)) state.pin(Number(event.key) - 1);
    else return;
    event.preventDefault();
  });
}
