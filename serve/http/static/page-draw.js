// Creates elements. Data from the server becomes text or attributes, never HTML.

export function $(id) {
  return document.getElementById(id);
}

export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null)); // append turns strings into text nodes
  return made;
}

export function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}

export function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString([], { timeStyle: "medium", hourCycle: "h23" });
}
