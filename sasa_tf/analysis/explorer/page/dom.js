// Small helpers for elements.

export const byId = (id) => document.getElementById(id);

/** Creates an element with attributes ("text" sets its text) and children. */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") created.textContent = value;
    else if (name.startsWith("--")) created.style.setProperty(name, value);
    else created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}

/** Makes the buttons of a radio group follow the arrow keys, with one of them in the tab order. */
export function radioKeys(group, vertical) {
  const [back, forward] = vertical ? ["ArrowUp", "ArrowDown"] : ["ArrowLeft", "ArrowRight"];
  group.addEventListener("keydown", (event) => {
    const step = event.key === forward ? 1 : event.key === back ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    const buttons = [...group.children];
    const next = buttons.indexOf(document.activeElement) + step;
    const target = buttons[(next + buttons.length) % buttons.length];
    target.focus();
    target.click();
  });
}

/** Marks the selected button of a radio group. */
export function checkRadio(group, selected) {
  [...group.children].forEach((button, index) => {
    button.setAttribute("aria-checked", String(index === selected));
    button.tabIndex = index === selected ? 0 : -1;
  });
}

export const percent = (value) => `${Math.round(100 * value)} %`;
export const digits = (value) => (value < 9.95 ? value.toFixed(1) : String(Math.round(value)));
