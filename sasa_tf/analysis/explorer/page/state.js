// What is shown: image, layer, head, query pixel, view and detection.

import {layerPixel} from "explorer/geometry";
import {loadWeights} from "explorer/weights";

/**
 * Creates the state. Its fields are changed by its methods alone, which notify the subscribers.
 *
 * head is null for the mean over the heads; query is [row, column] in pixels of the image; view is
 * "window" or "rollout"; detection is an index or null; weights is null while an image is loading.
 */
export function createState(data) {
  const subscribers = [];
  const loaded = new Map();
  const state = {
    data,
    imageIndex: 0,
    layerIndex: defaultLayer(data.layers),
    head: null,
    query: [0, 0],
    view: "window",
    detection: null,
    weights: null,

    get image() { return data.images[state.imageIndex]; },
    get layer() { return data.layers[state.layerIndex]; },

    subscribe(callback) { subscribers.push(callback); },

    set(changes) {
      Object.assign(state, changes);
      for (const callback of subscribers) callback();
    },

    async selectImage(index) {
      const image = data.images[index];
      const query = firstQuery(image);
      const view = image.rollout ? state.view : "window";
      state.set({imageIndex: index, weights: null, detection: null, query, view});
      if (!loaded.has(index)) loaded.set(index, loadWeights(data.layers, image));
      const weights = await loaded.get(index);
      if (state.imageIndex === index) state.set({weights});
    },

    selectLayer(index) {
      const last = data.layers.length - 1;
      const layerIndex = Math.max(0, Math.min(last, index));
      const head = state.head < data.layers[layerIndex].heads ? state.head : null;
      state.set({layerIndex, head, view: "window"});
    },

    /** Pins a head, or shows the mean again if it is pinned or null. */
    pin(head) {
      if (head !== null && head >= state.layer.heads) return;
      state.set({head: head === state.head ? null : head, view: "window"});
    },

    /** Moves the query to a pixel of the image; positions outside are moved to its border. */
    moveTo(row, column) {
      const query = [
        Math.max(0, Math.min(state.image.height - 1, Math.floor(row))),
        Math.max(0, Math.min(state.image.width - 1, Math.floor(column))),
      ];
      state.set({query, detection: null});
    },

    /** Moves the query by pixels of the layer's query grid. */
    moveBy(rows, columns) {
      const {layer} = state;
      const [row, column] = layerPixel(layer, state.query);
      const next = [step(layer.rows, row, rows), step(layer.columns, column, columns)];
      state.moveTo((next[0] + 0.5) * layer.stride[0], (next[1] + 0.5) * layer.stride[1]);
    },

    selectDetection(index) {
      if (index === state.detection) {
        state.set({detection: null});
        return;
      }
      const [top, left, bottom, right] = state.image.detections[index].box;
      state.moveTo((top + bottom) / 2, (left + right) / 2);
      state.set({detection: index});
    },
  };
  return state;
}

/** Begins at the most certain detection, or in the middle of the image. */
function firstQuery(image) {
  const [top, left, bottom, right] = image.detections[0]?.box ?? [0, 0, image.height, image.width];
  return [Math.floor((top + bottom) / 2), Math.floor((left + right) / 2)];
}

/** Begins in the middle of the network, where windows are neither tiny nor the whole image. */
function defaultLayer(layers) {
  const windows = layers.filter((layer) => !layer.isBlock);
  const middle = windows[Math.floor(windows.length / 2)];
  return Math.max(0, layers.indexOf(middle));
}

/** Returns the value of a sorted grid that is `count` steps from the one nearest to `value`. */
function step(grid, value, count) {
  const nearest = nearestIndex(grid, value);
  return grid[Math.max(0, Math.min(grid.length - 1, nearest + count))];
}

export function nearestIndex(grid, value) {
  let best = 0;
  for (let i = 1; i < grid.length; i++) {
    if (Math.abs(grid[i] - value) < Math.abs(grid[best] - value)) best = i;
  }
  return best;
}
