// The list of layers: the query's window, averaged over the heads, and statistics of the image.

import {heat, paint, relative} from "explorer/colors";
import {checkRadio, digits, element, percent, radioKeys} from "explorer/dom";
import {layerPixel} from "explorer/geometry";
import {gridQuery, windowOf} from "explorer/weights";

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

export function createLayers(container, state) {
  const rows = state.data.layers.map((layer, index) => createRow(layer, index, state));
  container.replaceChildren(...rows.map((row) => row.button));
  radioKeys(container, true);
  let image = null;
  return () => {
    checkRadio(container, state.layerIndex);
    if (image !== state.image) {
      image = state.image;
      const farthest = Math.max(...image.layers.map((layer) => mean(layer.imageDistance)));
      rows.forEach((row, index) => showStatistics(row, state.data.layers[index],
        image.layers[index], farthest));
    }
    if (!state.weights) return;
    state.data.layers.forEach((layer, index) => {
      const {indices} = gridQuery(layer, layerPixel(layer, state.query));
      const window = windowOf(layer, state.weights.windows[index], indices, null);
      paint(rows[index].canvas, relative(window), ...layer.kernel, heat);
    });
  };
}

function createRow(layer, index, state) {
  const canvas = element("canvas", {"aria-hidden": "true"});
  const entropy = element("span", {class: "meter"}, element("i"), element("span"));
  const distance = element("span", {class: "meter far"}, element("i"), element("span"));
  const padding = element("span", {class: "share"});
  const [height, width] = layer.size;
  const button = element("button", {class: "layer", type: "button", role: "radio"}, canvas,
    element("span", {class: "name", text: layer.label},
      element("small", {text: `${width} × ${height}, ${layer.isBlock ? "block" : "window"} ` +
        `${layer.kernel[1]} × ${layer.kernel[0]}`})),
    entropy, distance, padding);
  button.addEventListener("click", () => state.selectLayer(index));
  return {button, canvas, entropy, distance, padding};
}

function showStatistics(row, layer, statistics, farthest) {
  const entropy = mean(statistics.entropy) / layer.maxEntropy;
  const distance = mean(statistics.imageDistance);
  const padding = mean(statistics.padding);
  setMeter(row.entropy, entropy, percent(entropy));
  setMeter(row.distance, distance / farthest, `${digits(distance)} px`);
  row.padding.textContent = padding ? percent(padding) : "–";
  row.button.setAttribute("aria-label", `${layer.label}, ${layer.size[1]} by ${layer.size[0]}, ` +
    `entropy ${percent(entropy)}, distance ${digits(distance)} pixels, ` +
    `${percent(padding)} on the padding`);
}

function setMeter(meter, value, text) {
  meter.firstChild.style.setProperty("--value", value);
  meter.lastChild.textContent = text;
}
