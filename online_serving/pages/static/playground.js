// The playground: a slate, a click, and what the API has learnt from it. Everything comes from the API's public routes.

import { bar, call, cover, element, pathOf, pause, percent, settings, svg, why } from "./page.js";

const byId = (id) => document.getElementById(id);

const LOOK_MS = 25; // between two looks whether a click was learnt from
const PATIENCE_MS = 20_000;
const TRAINING_MS = 1_000; // between two looks how far a training is
const LOADING_MS = 60_000; // that its release may take until it answers
const MOVERS = 6;
const BOOST = 2;
const MOST_BOOSTS = 10; // that a request may have
const SOURCES = {
  index: "near to you",
  cluster: "liked by people like you",
  lists: "goes with what you liked",
  fresh: "new, and hardly shown yet",
  named: "asked for by name",
};
const RULES = {
  unavailable: "not available",
  excluded_categories: "of categories that the settings exclude",
  shown_before: "shown to you before",
  excluded: "left out by you",
  not_in_only: "not asked for",
  filtered: "that your rule does not describe",
};

const items = new Map(); // id -> what the catalogue says
const tracks = new Map(); // id -> [{ clicks, mean, deviation }], of this user
const state = { user: "", now: null, before: null, best: new Map(), last: new Map(), clicks: 0, chart: null, turn: 0 };

// --- the API

const common = () => ({
  user_id: state.user,
  surface: chosen("surface")[0] ?? "default",
  exclude: { categories: chosen("category") },
  boosts: Object.fromEntries(chosen("rather").map((category) => [`category == ${JSON.stringify(category)}`, BOOST])),
  filter: byId("filter").value.trim() || null,
});

const chosen = (name) => [...document.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value);

/** The best by estimate, shown or not, and what is in the slates: id -> its place (from 1; none if not among the best) and why. */
async function estimates() {
  const ask = (more) => call("POST", "/v1/recommendations:preview", { ...common(), repeat_shown: true, slate_size: settings.previewed, ...more });
  const best = await ask({});
  const found = new Map(best.items.map((item) => [item.id, { ...item, place: item.position }]));
  const others = [state.now, state.before].flatMap((slate) => slate?.items ?? []).map((item) => item.id).filter((id) => !found.has(id));
  if (others.length) {
    const named = await ask({ exclude: [], only: others, slate_size: Math.min(others.length, settings.previewed) });
    for (const item of named.items) found.set(item.id, { ...item, place: null });
  }
  return found;
}

async function look(ids) {
  await Promise.all(
    ids.filter((id) => !items.has(id)).map(async (id) => {
      const found = await call("GET", pathOf(id)).catch(() => ({ id, title: "", categories: [] }));
      items.set(id, found);
    }),
  );
}

const nameOf = (id) => items.get(id)?.title || id;

// --- what happens

async function begin(user) {
  const turn = ++state.turn;
  Object.assign(state, { user, now: null, before: null, best: new Map(), last: new Map(), clicks: 0, chart: null });
  tracks.clear();
  byId("user").value = user;
  byId("moved").replaceChildren();
  const held = await call("GET", `/v1/users/${encodeURIComponent(user)}`).catch(() => null);
  if (turn !== state.turn) return;
  byId("about").textContent = held?.history ? `${held.history} things known of this user.` : "Nothing is known of this user.";
  await next();
  if (turn === state.turn) tell(`${state.now.items.length} items for ${user}. Like one, and see what it changes.`);
}

/** Asks for the next slate and puts it beside the one before. What was seen of that one and left alone is an answer, too. */
async function next() {
  const turn = state.turn;
  if (state.now && settings.view) {
    const seen = state.now.items.filter((item) => !state.now.done.has(item.id)).map((item) => eventOf(state.now, item.id, settings.view));
    if (seen.length) await call("POST", "/v1/feedback", { events: seen });
  }
  const slate = await call("POST", "/v1/recommendations", { ...common(), slate_size: settings.slate_size, explain: true });
  if (turn !== state.turn) return;
  if (state.now) state.before = state.now;
  state.now = { ...slate, done: new Map() };
  const best = await estimates();
  if (turn !== state.turn) return;
  if (!state.last.size) state.last = best;
  state.best = best;
  note();
  await look(slate.items.map((item) => item.id));
  if (turn === state.turn) render(true);
}

async function switched() {
  await next();
  tell(state.now.items.length ? "The slate by what you chose, beside the one before." : "Nothing is left by what you chose.");
}

/** Says what the user did with an item, waits until answers have learnt from it, and shows what that changed. */
async function react(slate, id, type, button) {
  const turn = state.turn;
  const [card, inSlate] = [button.closest(".card"), button.closest("#now") !== null];
  slate.done.set(id, type);
  for (const other of card.querySelectorAll(".acts button")) other.disabled = true;
  const before = state.best;
  try {
    const answer = await call("POST", "/v1/feedback", { events: [eventOf(slate, id, type)] });
    const clicked = performance.now();
    const { partition, offset } = answer.events[0];
    tell(`The log has it. Waiting until it is learnt …`);
    let known = null;
    while (known === null || known.parameter_offsets[partition] <= offset) {
      if (turn !== state.turn) return;
      if (performance.now() - clicked > PATIENCE_MS) throw new Error("It was not learnt within 20 s. Does the updater run? `matchloop status` says.");
      if (known) await pause(LOOK_MS);
      known = await call("POST", "/v1/recommendations:preview", { user_id: state.user, slate_size: 1, explain: false });
    }
    const seconds = ((performance.now() - clicked) / 1000).toFixed(2);
    const best = await estimates();
    if (turn !== state.turn) return;
    Object.assign(state, { last: before, best, clicks: state.clicks + 1, chart: id });
    note();
    await showMoved();
    const [was, is] = [before.get(id)?.score, best.get(id)?.score];
    const change = was !== undefined && is !== undefined ? ` ${nameOf(id)}: ${percent(was)} before, ${percent(is)} now.` : "";
    const learns = slate.logged ? "" : " The log was slow when this slate was made: your click is kept, and teaches the bandit nothing.";
    tell(`Learnt ${seconds} s after your click.${change}${learns}`);
    if (byId("auto").checked && inSlate) {
      await next();
      byId("now").querySelector(".acts button")?.focus({ preventScroll: true });
    } else render(false);
  } catch (error) {
    slate.done.delete(id);
    for (const other of card.querySelectorAll(".acts button")) other.disabled = false;
    complain(error);
  }
}

const eventOf = (slate, id, type) => ({ decision_id: slate.decision_id, item_id: id, type, event_id: `${type}-${Date.now()}-${Math.random()}` });

/** Keeps the estimates of what is or was in the slates, for the chart. */
function note() {
  const followed = new Set([...tracks.keys(), ...[state.now, state.before].flatMap((slate) => slate?.items ?? []).map((item) => item.id)]);
  for (const id of followed) {
    const found = state.best.get(id);
    if (!found) continue;
    const track = tracks.get(id) ?? [];
    const point = { clicks: state.clicks, mean: found.score, deviation: found.explanation.levels?.deviation ?? 0 };
    if (track.at(-1)?.clicks === state.clicks) track[track.length - 1] = point;
    else track.push(point);
    tracks.set(id, track);
  }
}

// --- what is seen

function tell(words) {
  byId("news").classList.remove("problem");
  byId("news").textContent = words;
}

function complain(error) {
  byId("news").classList.add("problem");
  byId("news").textContent = error.message;
}

function render(fresh) {
  const all = [state.now, state.before].flatMap((slate) => slate?.items ?? []);
  const highest = Math.max(...all.map((item) => top(state.best.get(item.id) ?? item)), 0.01);
  show(byId("now"), state.now, highest, fresh);
  show(byId("before"), state.before, highest, false);
  byId("before").querySelector(".empty").hidden = state.before !== null;
  const rules = Object.entries(state.now.rules).filter(([, count]) => count > 0);
  byId("now").querySelector(".rules").textContent = rules.length
    ? `Left out: ${rules.map(([rule, count]) => `${count.toLocaleString("en")} ${RULES[rule] ?? rule.replaceAll("_", " ")}`).join(", ")}. Release ${state.now.release.slice(0, 8)}, variant ${state.now.variant}.`
    : "No rule left anything out.";
  offerCategories();
  offerChart();
}

const top = (item) => item.score + (item.explanation?.levels?.deviation ?? 0);

function show(section, slate, highest, fresh) {
  section.querySelector(".cards").replaceChildren(...(slate?.items ?? []).map((item) => card(slate, item, highest, fresh)));
}

function card(slate, shown, highest, fresh) {
  const id = shown.id;
  const known = items.get(id);
  const now = state.best.get(id) ?? shown;
  const was = state.last.get(id);
  const found = shown.source.split("+").map((source) => SOURCES[source] ?? source).join(", ");
  const explored = shown.probability < 0.5 ? "shown to explore" : null;
  return element(
    "li",
    { class: fresh ? "card fresh" : "card" },
    cover(known),
    element("h3", {}, nameOf(id)),
    element("p", { class: "quiet" }, known.categories.join(", ")),
    element("div", { class: "estimate" }, bar(now.score, now.explanation.levels?.deviation ?? 0, highest, "people"), moved(was, now)),
    element("p", { class: "tags quiet" }, element("span", {}, found), explored && element("span", {}, explored)),
    element("div", { class: "acts" }, act(slate, id, settings.like, "Like"), act(slate, id, settings.dislike, "Not for me")),
    why(now, highest),
  );
}

function act(slate, id, type, words) {
  if (type === null) return null;
  const done = slate.done.get(id);
  return element(
    "button",
    { type: "button", "aria-label": `${words}: ${nameOf(id)}`, "aria-pressed": String(done === type), disabled: done !== undefined,
      click: (event) => react(slate, id, type, event.currentTarget) },
    words,
  );
}

/** The estimate in words, with where it came from. */
function moved(was, now) {
  if (!was || Math.abs(was.score - now.score) < 0.0005) return element("b", {}, percent(now.score));
  const up = now.score > was.score;
  const words = `${up ? "▲" : "▼"} ${percent(now.score)}`;
  return element("b", { class: up ? "up" : "down", title: `${percent(was.score)} before your click` }, words, element("span", { class: "unseen" }, `, ${percent(was.score)} before your click`));
}

/** The largest changes among the best, and what made them. */
async function showMoved() {
  const changes = [...state.best.values()]
    .map((now) => ({ now, was: state.last.get(now.id) }))
    .filter(({ was, now }) => was && was.explanation.levels && now.explanation.levels && Math.abs(was.score - now.score) > 1e-6)
    .sort((a, b) => Math.abs(b.now.score - b.was.score) - Math.abs(a.now.score - a.was.score))
    .slice(0, MOVERS);
  await look(changes.map(({ now }) => now.id));
  byId("moved").replaceChildren(
    ...changes.map(({ was, now }) => {
      const up = now.score > was.score;
      const places = was.place && now.place && was.place !== now.place ? `, place ${was.place} → ${now.place}` : "";
      return element(
        "li",
        {},
        element("span", {}, nameOf(now.id)),
        element("span", { class: up ? "up" : "down" }, `${up ? "▲" : "▼"} ${percent(was.score)} → ${percent(now.score)}${places}`),
        element("span", { class: "quiet" }, reason(was.explanation, now.explanation)),
      );
    }),
  );
  byId("moved").nextElementSibling.hidden = changes.length > 0;
}

/** Which level changed most. */
function reason(was, now) {
  const gains = ({ levels, mean }) => [levels.group, levels.item - levels.group, mean - levels.optimism - levels.item];
  const before = gains(was);
  const words = ["the model sees you in another light", "the item earned it", "people like you"];
  const changes = gains(now).map((gain, level) => Math.abs(gain - before[level]));
  return words[changes.indexOf(Math.max(...changes))];
}

function offerCategories() {
  const known = new Set([...items.values()].flatMap((item) => item.categories));
  const there = new Set([...document.querySelectorAll('input[name="category"]')].map((box) => box.value));
  for (const category of [...known].filter((name) => !there.has(name)).sort()) {
    byId("categories").append(choice("checkbox", "category", category, category, false));
    if (byId("boosts").querySelectorAll("input").length < MOST_BOOSTS) byId("boosts").append(choice("checkbox", "rather", category, `${category} × ${BOOST}`, false));
    byId("known").append(element("option", { value: category }));
  }
}

function choice(type, name, value, words, checked) {
  return element("label", { class: "choice" }, element("input", { type, name, value, checked, change: () => attempt(switched) }), words);
}

function offerChart() {
  const select = byId("item");
  const wanted = tracks.has(state.chart) ? state.chart : state.now.items[0]?.id;
  select.replaceChildren(...[...tracks.keys()].filter((id) => items.has(id)).map((id) => element("option", { value: id, selected: id === wanted }, nameOf(id))));
  chart(wanted);
}

function chart(id) {
  const track = tracks.get(id) ?? [];
  byId("chart").replaceChildren();
  if (!track.length) return;
  const [width, height, left] = [320, 130, 44];
  const most = Math.max(...track.map((point) => point.mean + point.deviation), 0.01);
  const least = Math.max(Math.min(...track.map((point) => point.mean - point.deviation)), 0);
  const last = Math.max(state.clicks, 1);
  const x = (point) => left + ((width - left - 8) * point.clicks) / last;
  const y = (share) => 6 + ((height - 30) * (most - Math.max(share, least))) / (most - least || 1);
  const around = [...track.map((point) => [x(point), y(point.mean + point.deviation)]), ...track.toReversed().map((point) => [x(point), y(point.mean - point.deviation)])];
  const words = `Estimate of ${nameOf(id)} over your clicks: ${track.map((point) => percent(point.mean)).join(", ")}.`;
  byId("chart").replaceChildren(
    svg(
      "svg",
      { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words },
      svg("line", { class: "axis", x1: left, x2: width, y1: y(least), y2: y(least) }),
      svg("text", { x: 0, y: y(most) + 8 }, percent(most)),
      svg("text", { x: 0, y: y(least) }, percent(least)),
      svg("text", { x: left, y: height - 6 }, "before you clicked"),
      svg("text", { x: width, y: height - 6, "text-anchor": "end" }, state.clicks ? `after click ${state.clicks}` : ""),
      svg("polygon", { class: "band", points: around.map((at) => at.join()).join(" ") }),
      svg("polyline", { class: "line", points: track.map((point) => [x(point), y(point.mean)].join()).join(" ") }),
      ...track.map((point) => svg("circle", { cx: x(point), cy: y(point.mean), r: 3.5 })),
    ),
  );
}

/** Puts an item into the catalogue, and waits until answers may have it. */
async function add(title, categories) {
  const id = `playground-${Date.now().toString(36)}`;
  const began = performance.now();
  await call("PUT", pathOf(id), { title, categories });
  let item = null;
  while (!item?.servable) {
    if (performance.now() - began > PATIENCE_MS) throw new Error("It is in the catalogue, and was not served within 20 s.");
    if (item) await pause(LOOK_MS);
    item = await call("GET", pathOf(id));
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(2);
  items.set(id, item);
  state.best = await estimates();
  const found = state.best.get(id);
  const place = found?.place ? `It is number ${found.place} of the best for you, at ${percent(found.score)}.` : "It is not among the best for you; as long as it is new, exploring may show it.";
  const remove = element("button", { type: "button", click: () => attempt(async () => {
    await call("DELETE", pathOf(id));
    byId("added").textContent = `${title} is gone again.`;
  }) }, "Remove it again");
  byId("added").replaceChildren(`${title} could be recommended after ${seconds} s. ${place} `, remove);
  offerCategories();
}

/** Tells how far the training is of what will take the place of this, and turns into its page. */
async function follow() {
  const [words, bar] = byId("training").children;
  let [training, heard] = [null, performance.now()];
  for (;;) {
    const found = await call("GET", "/playground.json").catch(() => null);
    if (found?.training) {
      [training, heard] = [found.training, performance.now()];
      const { of, step, steps, name, fraction, message } = training;
      words.textContent =
        `These books and readers are made up, to play with while the demo trains on ${of}: step ${step} of ${steps} (${name}), ` +
        `${Math.floor(100 * fraction)} %${message && `, ${message}`}. Then this page turns into it by itself.`;
      bar.value = (step - 1 + fraction) / steps;
    } else if (found && (await call("GET", "/readyz").then(() => true, () => false))) {
      location.reload();
      return;
    } else if (training && training.step === training.steps && performance.now() < heard + LOADING_MS) {
      words.textContent = `What was trained on ${training.of} is being loaded: this page turns into it in some seconds.`;
    } else words.textContent = "The API does not answer. Does the demo still run? Its terminal says.";
    byId("training").hidden = false;
    await pause(TRAINING_MS);
  }
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    complain(error);
  }
}

// --- wiring

const nobody = () => `visitor-${Math.random().toString(36).slice(2, 8)}`;

byId("users").append(...settings.users.map((value) => element("option", { value })));
byId("surfaces").append(
  ...Object.entries(settings.surfaces).map(([surface, share]) =>
    choice("radio", "surface", surface, `${surface}: ${share ? `${Number((100 * share).toFixed(1))} % of places` : "nothing"}`, surface === "default"),
  ),
);
byId("who").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => begin(byId("user").value));
});
byId("nobody").addEventListener("click", () => attempt(() => begin(nobody())));
byId("rule").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(switched);
});
byId("next").addEventListener("click", () => attempt(async () => {
  await next();
  tell(`The next ${state.now.items.length} items.`);
}));
byId("item").addEventListener("change", (event) => {
  state.chart = event.target.value;
  chart(state.chart);
});
byId("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const categories = byId("of").value.split(",").map((name) => name.trim()).filter(Boolean);
  attempt(() => add(byId("title").value, categories));
});
if (settings.training) follow();
attempt(() => begin(settings.users[0] ?? nobody()));
