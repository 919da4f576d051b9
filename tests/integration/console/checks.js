// What is wrong with the page for people who cannot see well, use no mouse, or hold a phone: a list of sentences. Contrast as WCAG
// 2.2 AA has it: 4.5 for text, 3 for large text and for the edges of controls, by computed style.
() => {
  const faults = [];
  const seen = new Set();
  for (const element of document.querySelectorAll("[id]")) {
    if (seen.has(element.id)) faults.push(`id ${element.id} twice`);
    seen.add(element.id);
  }
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (!document.documentElement.lang) faults.push("no language");
  if (!document.querySelector("main")) faults.push("no main");
  const visible = (element) => element.checkVisibility({ checkVisibilityCSS: true, checkOpacity: true });
  const labels = (element) => [...element.labels].map((label) => label.textContent.trim()).join(" ");
  const name = (element) =>
    element.getAttribute("aria-label") ||
    (element.matches("input, select, textarea, progress") ? labels(element) : element.textContent.trim());
  const controls = "a[href], button, summary, input:not([type=hidden]), select, textarea, progress";
  for (const element of document.querySelectorAll(controls)) {
    if (!name(element)) faults.push(`no name: ${element.outerHTML.slice(0, 90)}`);
    if (visible(element) && element.tabIndex < 0) faults.push(`not by keyboard: ${element.outerHTML.slice(0, 90)}`);
  }
  for (const element of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
    for (const id of (element.getAttribute("aria-labelledby") || element.getAttribute("aria-describedby")).split(" "))
      if (!document.getElementById(id)) faults.push(`names what is not there: ${id}`);
  for (const table of document.querySelectorAll("table"))
    for (const cell of table.querySelectorAll("th")) if (!cell.scope) faults.push("th without scope");

  const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const parse = (text) => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    const scale = text.startsWith("color(") ? 1 : 255;
    return { rgb: numbers.slice(0, 3).map((n) => n / scale), alpha: numbers.length > 3 ? numbers[3] : 1 };
  };
  const luminance = (rgb) => rgb.map(channel).reduce((sum, n, i) => sum + n * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.alpha > 0) layers.unshift(colour);
      if (colour.alpha === 1) break;
    }
    return layers.reduce((below, { rgb, alpha }) => below.map((n, i) => n * (1 - alpha) + rgb[i] * alpha), [1, 1, 1]);
  };
  const ratio = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const done = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (done.has(element) || !walker.currentNode.textContent.trim() || !visible(element)) continue;
    if (element.closest("option, script, style, .hidden, .skip")) continue;
    done.add(element);
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const found = ratio(parse(style.color).rgb, behind(element));
    if (found < needed) faults.push(`contrast ${found.toFixed(2)}: ${element.outerHTML.slice(0, 90)}`);
  }
  for (const element of document.querySelectorAll("input:not([type=hidden], [type=range]), select, textarea")) {
    if (!visible(element)) continue;
    const found = ratio(parse(getComputedStyle(element).borderTopColor).rgb, behind(element.parentElement));
    if (found < 3) faults.push(`edge ${found.toFixed(2)}: ${element.outerHTML.slice(0, 90)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`${document.documentElement.scrollWidth} px wide`);
  return faults;
}
