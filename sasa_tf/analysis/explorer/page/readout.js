// The numbers of the query's window, also as a sentence for screen readers.

import {digits, element, percent} from "explorer/dom";
import {layerPixel} from "explorer/geometry";
import {gridQuery, windowOf, windowStatistics} from "explorer/weights";

// Screen readers hear where the query stops, not each pixel on its way.
const PAUSE_MS = 400;

export function createReadout(list, status, state) {
  const fields = ["Query", "Entropy", "Mean distance", "On padding"].map((name) => {
    const value = element("dd");
    list.append(element("div", {}, element("dt", {text: name}), value));
    return value;
  });
  let timer = 0;
  return () => {
    if (!state.weights) return;
    const {layer, query} = state;
    const {indices, pixel} = gridQuery(layer, layerPixel(layer, query));
    const bytes = state.weights.windows[state.layerIndex];
    const window = windowOf(layer, bytes, indices, state.head);
    const {entropy, distance, padding} = windowStatistics(layer, window, pixel);
    show(fields[0], `${query[1]}, ${query[0]}`, "x, y");
    show(fields[1], percent(entropy / layer.maxEntropy), `${entropy.toFixed(2)} nats`);
    show(fields[2], digits(distance), "px");
    show(fields[3], percent(padding), "");
    clearTimeout(timer);
    timer = setTimeout(() => {
      const head = state.head === null ? "mean of the heads" : `head ${state.head + 1}`;
      status.textContent = `${layer.label}, ${head}, query row ${query[0]}, column ${query[1]}: ` +
        `entropy ${percent(entropy / layer.maxEntropy)}, mean distance ${digits(distance)} ` +
        `pixels, ${percent(padding)} on the padding.`;
    }, PAUSE_MS);
  };
}

function show(field, value, unit) {
  field.replaceChildren(value, element("small", {text: unit ? ` ${unit}` : ""}));
}
