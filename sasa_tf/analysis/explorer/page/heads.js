// Tiles of the heads of the selected layer: windows of the query, and learned positions.

import {diverging, heat, paint, relative} from "explorer/colors";
import {element, percent} from "explorer/dom";
import {layerPixel} from "explorer/geometry";
import {gridQuery, windowOf, windowStatistics} from "explorer/weights";

export function createHeads(container, title, state) {
  let tiles = [];
  return () => {
    const {layer} = state;
    if (tiles.length !== layer.heads) tiles = createTiles(container, layer.heads, state);
    title.textContent = `Heads of ${layer.label}`;
    if (!state.weights) return;
    const {indices, pixel} = gridQuery(layer, layerPixel(layer, state.query));
    tiles.forEach((tile, head) => {
      const window = windowOf(layer, state.weights.windows[state.layerIndex], indices, head);
      paint(tile.canvas, relative(window), ...layer.kernel, heat);
      const {entropy} = windowStatistics(layer, window, pixel);
      const share = percent(entropy / layer.maxEntropy);
      tile.value.textContent = share;
      tile.button.setAttribute("aria-pressed", String(state.head === head));
      tile.button.setAttribute("aria-label", `Head ${head + 1}, entropy ${share}, pin`);
    });
  };
}

function createTiles(container, count, state) {
  const tiles = Array.from({length: count}, (_, head) => {
    const canvas = element("canvas", {"aria-hidden": "true"});
    const value = element("em", {style: "font-style: normal", title: "entropy"});
    const button = element("button", {class: "tile", type: "button"}, canvas,
      element("span", {"aria-hidden": "true"}, element("b", {text: head + 1}), value));
    button.addEventListener("click", () => state.pin(head));
    return {canvas, value, button};
  });
  container.replaceChildren(...tiles.map((tile) => tile.button));
  return tiles;
}

/** Images of the position logits; the section is hidden for layers without positions. */
export function createPositions(section, container, state) {
  let shown = null;
  return () => {
    const {positions} = state.image.layers[state.layerIndex];
    section.hidden = positions === null;
    if (positions === null || positions === shown) return;
    shown = positions;
    const [rows, columns] = state.layer.kernel;
    container.replaceChildren(...positions.map((logits, head) => {
      const values = logits.flat();
      // The softmax ignores a constant, so that the mean is the neutral color.
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const centered = values.map((value) => value - mean);
      const largest = Math.max(...centered.map(Math.abs), 1e-9);
      const canvas = element("canvas", {
        role: "img",
        "aria-label": `Head ${head + 1}, position logits from ${Math.min(...values).toFixed(2)} ` +
          `to ${Math.max(...values).toFixed(2)}`,
      });
      paint(canvas, centered.map((value) => value / largest), rows, columns, diverging);
      return element("div", {class: "tile"}, canvas, element("span", {},
        element("b", {text: head + 1}),
        element("em", {style: "font-style: normal", text: `±${largest.toFixed(1)}`})));
    }));
  };
}
