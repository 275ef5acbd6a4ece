// xterm.js writes styles as text, into <style> elements and `style` attributes. Our policy forbids
// both (CSP 3, `style-src`), but not the same through objects: constructed style sheets, and
// properties that a script sets. While a terminal is open, elements take the one way for the other.

/** Change how this document makes elements; return a function that changes it back. */
export function withoutInlineStyles(document: Document): () => void {
  const create = Document.prototype.createElement;
  document.createElement = (tag: string, options?: ElementCreationOptions): HTMLElement => {
    if (tag === "style") return sheet(document);
    const element: HTMLElement = create.call(document, tag, options);
    if (tag === "span") setThroughProperties(element);
    return element;
  };
  return () => {
    // What is below is the prototype's own.
    delete (document as { createElement?: unknown }).createElement;
  };
}

/** An element whose text is a style sheet. It is no <style>: the policy forbids even an empty one. */
function sheet(document: Document): HTMLElement {
  const element = document.createElement("meta");
  const made = new CSSStyleSheet();
  document.adoptedStyleSheets.push(made);
  Object.defineProperty(element, "textContent", {
    set: (text: string) => made.replaceSync(text),
    get: () => "",
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== made);
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
