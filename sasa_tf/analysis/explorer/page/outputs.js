// The model's output: the most probable classes, or detections that can be selected.

import {element, percent} from "explorer/dom";

export function createOutputs(section, title, list, state) {
  let image = null;
  let buttons = [];
  return () => {
    if (image !== state.image) {
      image = state.image;
      section.hidden = !image.predictions.length && !image.detections.length;
      title.textContent = state.data.isDetector ? "Detections" : "Prediction";
      buttons = image.detections.map((detection, index) => createButton(detection, index, state));
      list.replaceChildren(...(buttons.length ? [
        element("p", {class: "quiet", text: "Select one to see what its pixels attend to."}),
        element("div", {class: "detections"}, ...buttons),
      ] : image.predictions.map(createPrediction)));
    }
    buttons.forEach((button, index) => {
      button.setAttribute("aria-pressed", String(index === state.detection));
    });
  };
}

function createPrediction({label, score}) {
  return element("div", {class: "output"}, element("span", {text: label}),
    element("i", {"--value": score}), element("span", {text: percent(score)}));
}

function createButton({label, score}, index, state) {
  const button = element("button", {type: "button"}, `${label} `,
    element("small", {text: percent(score)}));
  button.addEventListener("click", () => state.selectDetection(index));
  return button;
}
