// Elements from data. Text becomes text nodes alone: names come from clients, and nothing they say is ever markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Properties: `class`, `on` (listeners), `data`, and attributes; children are nodes, text, lists, or null. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same of a drawing. */
export function s(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

/** Take this element's children away and put these in their place. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(isThere).map(node));
  return element;
}

/** Make these its children. Those that are there stay where they are, and keep focus, and what is scrolled or pressed in them: to be moved is to be taken away. */
export function arrange(element, children) {
  [...element.childNodes].filter((one) => !children.includes(one)).forEach((one) => one.remove());
  children.forEach((one, index) => {
    if (element.childNodes[index] !== one) element.insertBefore(one, element.childNodes[index] ?? null);
  });
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "class") element.setAttribute("class", value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(isThere).map(node));
  return element;
}

const isThere = (child) => child !== null && child !== undefined && child !== false;
const node = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));
