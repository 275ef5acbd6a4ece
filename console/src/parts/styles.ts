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
  const element = target.createElement(tag);
  if (tag === "style") becomeSheet(target, element);
  if (tag === "span") setThroughProperties(element);
  return element;
}

function becomeSheet(target: Document, element: HTMLElement): void {
  const sheet = new CSSStyleSheet();
  target.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", {
    set: (text: string) => sheet.replaceSync(text),
    get: () => "",
  });
  element.remove = () => {
    target.adoptedStyleSheets = target.adoptedStyleSheets.filter((each) => each !== sheet);
    Element.prototype.remove.call(element);
  };
}

function setThroughProperties(element: HTMLElement): void {
  element.setAttribute = (name: string, value: string) => {
    if (name === "style") element.style.cssText = value;
    else Element.prototype.setAttribute.call(element, name, value);
  };
}
