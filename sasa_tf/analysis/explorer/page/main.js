// Starts the page: reads the data, creates the state and connects the views to it.

import {createImagePicker, createViewPicker} from "explorer/pickers";
import {createHeads, createPositions} from "explorer/heads";
import {createLayers} from "explorer/layers";
import {createOutputs} from "explorer/outputs";
import {createReadout} from "explorer/readout";
import {createStage} from "explorer/stage";
import {createState} from "explorer/state";
import {drawRamps} from "explorer/colors";
import {byId} from "explorer/dom";

const data = JSON.parse(byId("data").textContent);
const state = createState(data);

const heads = Math.max(...data.layers.map((layer) => layer.heads));
const [height, width] = [data.images[0].height, data.images[0].width];
byId("subtitle").textContent =
  `${data.title} · ${data.layers.length} attention layers, ${heads} heads · ${width} × ${height} pixels`;
document.title = `Attention explorer · ${data.title}`;
drawRamps(byId("ramp"), byId("diverging"));

const views = [
  createImagePicker(byId("images"), state),
  createViewPicker(byId("views"), byId("scope"), state),
  createStage(byId("stage"), byId("canvas"), state),
  createReadout(byId("readout"), byId("status"), state),
  createOutputs(byId("outputs"), byId("outputs-title"), byId("outputs-list"), state),
  createHeads(byId("heads"), byId("heads-title"), state),
  createPositions(byId("positions-section"), byId("positions"), state),
  createLayers(byId("layers"), state),
];

// All views are drawn at most once per frame.
let scheduled = false;
state.subscribe(() => {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    for (const draw of views) draw();
    document.documentElement.dataset.ready = String(state.weights !== null);
  });
});
state.selectImage(0);
