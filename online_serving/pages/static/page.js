// What the pages share: calls of the API, elements made of text, and covers.

/** What the API cannot be asked. */
export const settings = JSON.parse(document.body.dataset.settings);

for (const [path, there] of [["/", settings.playground], ["/dashboard", settings.dashboard], ["/docs", settings.docs]]) {
  const link = document.querySelector(`nav a[href="${path}"]`);
  if (link) link.hidden = !there;
}

/** An element. Children are elements or text; text never becomes HTML. */
export function element(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

/** The same of SVG. */
export function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), properties, children);
}

function filled(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** The JSON that the API answers. Throws an Error with what it says is wrong, and its status. */
export async function call(method, path, body) {
  const headers = { "x-matchloop-page": "1" };
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  const content = text && (response.headers.get("content-type") ?? "").includes("json") ? JSON.parse(text) : text;
  if (response.ok) return content;
  const error = new Error(content.message ?? `The API answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

export const pathOf = (item) => `/v1/items/${encodeURIComponent(item)}`;

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A bar up to a share of the highest, with one standard deviation to each side. */
export function bar(share, deviation, highest, kind) {
  const at = (value) => Math.min(Math.max((100 * value) / highest, 0), 100);
  const [low, high] = [at(share - deviation), at(share + deviation)];
  return svg(
    "svg",
    { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", width: 100, height: 10, rx: 1 }),
    svg("rect", { class: kind, width: at(share), height: 10, rx: 1 }),
    svg("rect", { class: "doubt", x: low, y: 4, width: high - low, height: 2 }),
  );
}

/** How an estimate comes about, level by level. */
export function why(item, highest) {
  const { predicted, bonus, clusters, levels } = item.explanation;
  if (!levels) return null;
  const row = (words, share, kind, deviation = 0) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, words),
      element("td", {}, bar(share, deviation, highest, kind)),
      element("td", {}, deviation ? `${percent(share)} ± ${(100 * deviation).toFixed(1)}` : percent(share)),
    );
  const rows = [
    row("The model predicts", predicted, "model"),
    row("Such items earn", levels.group, "group"),
    row("This item earned", levels.item, "own"),
    row("With people like you", item.score - levels.optimism, "people", levels.deviation),
  ];
  if (levels.optimism > 5e-4) rows.push(row("As it is new", item.score, "people"));
  const edges = Object.entries(levels.edges).sort(([a], [b]) => clusters[b] - clusters[a]).slice(0, 3);
  const people = edges.map(([cluster, mean]) => row(`Group ${cluster} (${Math.round(100 * clusters[cluster])} % of you)`, mean, "own"));
  const trials = `Shown with a known outcome ${number(levels.trials)} times, which earned ${number(levels.reward)}.`;
  const explores = bonus > 0 ? ` Exploring may rank it as if it earned ${percent(item.score + bonus)}.` : " It is not explored for you.";
  return element("details", { class: "why" }, element("summary", {}, "Why?"), element("table", {}, element("tbody", {}, ...rows, ...people)), element("p", {}, trials + explores));
}

export const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });

/** A picture for an item that has none: its categories choose the colours, its id the shapes. */
export function cover(item) {
  const draw = numbers(item.id);
  const hue = Math.floor(numbers((item.categories ?? []).join() || item.id)() * 360);
  const shapes = [svg("rect", { width: 60, height: 84, fill: `hsl(${hue} 45% 32%)` })];
  for (let i = 0; i < 4; i++) {
    const fill = `hsl(${(hue + 30 * i * draw() + 20) % 360} 65% ${45 + 8 * i}%)`;
    const [x, y, size] = [draw() * 60, draw() * 70, 9 + draw() * 20];
    shapes.push(
      draw() < 0.5
        ? svg("circle", { cx: x, cy: y, r: size, fill, opacity: 0.75 })
        : svg("rect", { x: x - size, y: y - size, width: 2 * size, height: size, fill, opacity: 0.75, transform: `rotate(${draw() * 90} ${x} ${y})` }),
    );
  }
  const letters = [...(item.title || item.id).replace(/^(the|a|an) /i, "")].slice(0, 2).join("");
  shapes.push(svg("text", { x: 6, y: 76, fill: "#fff", "font-size": 20, "font-weight": 700 }, letters));
  return svg("svg", { viewBox: "0 0 60 84", class: "cover", "aria-hidden": "true", preserveAspectRatio: "xMidYMid slice" }, ...shapes);
}

/** Numbers in [0, 1) that a text decides: FNV-1a, then xorshift. */
function numbers(text) {
  let state = 2166136261;
  for (const letter of text) state = Math.imul(state ^ letter.codePointAt(0), 16777619);
  state ||= 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
