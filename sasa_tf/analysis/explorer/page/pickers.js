// The choice of the image and of the heat map.

import {checkRadio, element, radioKeys} from "explorer/dom";

export function createImagePicker(container, state) {
  const {images} = state.data;
  if (images.length > 1) {
    container.replaceChildren(...images.map((image, index) => {
      const button = element("button", {
        type: "button", role: "radio", "aria-label": image.name, title: image.name,
      }, element("img", {src: image.source, alt: ""}));
      button.addEventListener("click", () => state.selectImage(index));
      return button;
    }));
  }
  radioKeys(container, false);
  return () => checkRadio(container, state.imageIndex);
}

const VIEWS = [["window", "Window"], ["rollout", "Rollout to the image"]];

export function createViewPicker(container, scope, state) {
  container.replaceChildren(...VIEWS.map(([view, label]) => {
    const button = element("button", {type: "button", role: "radio", text: label});
    button.addEventListener("click", () => state.set({view}));
    return button;
  }));
  radioKeys(container, false);
  return () => {
    checkRadio(container, VIEWS.findIndex(([view]) => view === state.view));
    container.hidden = !state.image.rollout;
    scope.replaceChildren(...scopeOf(state));
  };
}

/** Returns what the heat map shows, with a button that releases a pinned head. */
function scopeOf(state) {
  if (state.view === "rollout") return ["All layers, mean of the heads"];
  if (state.head === null) return [`${state.layer.label}, mean of the heads`];
  const release = element("button", {
    class: "chip", type: "button", text: `head ${state.head + 1} ×`,
    "aria-label": `Head ${state.head + 1} is pinned. Show the mean of the heads`,
  });
  release.addEventListener("click", () => state.pin(null));
  return [state.layer.label, release];
}
