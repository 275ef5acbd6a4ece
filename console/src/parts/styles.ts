// xterm.js writes styles as text, into <style> elements and `style` attributes. Our policy forbids
// both (CSP 3, `style-src`), but not the same through objects: constructed style sheets, and
// properties that a script sets. This is a document whose elements take the one way for the other.

export function documentWithoutInlineStyles(real: Document): Document {
  return new Proxy(real, {
    get(target, name) {
      if (name === "createElement") return (tag: string) => made(target, tag);
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function made(target: Document, tag: string): HTMLElement {
  if (tag === "style") return sheet(target);
  const element = target.createElement(tag);
  if (tag === "span") setThroughProperties(element);
  return element;
}

/** An element whose text is a style sheet. It is no <style>: the policy forbids even an empty one. */
function sheet(target: Document): HTMLElement {
  const element = target.createElement("meta");
  const made = new CSSStyleSheet();
  target.adoptedStyleSheets.push(made);
  Object.defineProperty(element, "textContent", {
    set: (text: string) => made.replaceSync(text),
    get: () => "",
  });
  element.remove = () => {
    target.adoptedStyleSheets = target.adoptedStyleSheets.filter((each) => each !== made);
    Element.prototype.remove.call(element);
  };
  return element;
}

function setThroughProperties(element: HTMLElement): void {
  element.setAttribute = (name: string, value: string) => {
    if (name === "style") element.style.cssText = value;
    else Element.prototype.setAttribute.call(element, name, value);
  };
}
