// The dashboard: what `matchloop status` and the metrics of the processes say, and what the API says of a user or an item.

import { bar, call, element, number, pathOf, pause, percent, settings, svg, why } from "./page.js";

const byId = (id) => document.getElementById(id);

const EVERY_MS = 5000;
const RECOMMENDATIONS = "/v1/recommendations";
const DEAD = ["dead", "unreadable"]; // outcomes of events that are dead letters
const LISTED = 8; // items of a user
const LOOK_MS = 50; // between two looks whether a change is served
const SETTLED_MS = 5000;

let before = null; // the last look: { at, answered }

async function look() {
  const [serving, found] = await Promise.all([call("GET", "/v1/parameters").catch(() => null), call("GET", "/dashboard.json")]);
  const samples = Object.values(found.metrics ?? {}).flat();
  const problems = (found.programs ?? []).flatMap((program) => [...(program.problem ? [`${program.name}: ${program.problem}`] : []), ...program.quarantined]);
  byId("news").classList.toggle("problem", problems.length > 0 || serving === null);
  const words = problems.join(" ") || (serving ? "Everything works." : "No release serves yet.");
  if (byId("news").textContent !== words) byId("news").textContent = words; // said once, not every five seconds
  links({ ...(found.endpoints?.mlflow ? { MLflow: found.endpoints.mlflow } : {}), ...settings.links });
  overview(found.overview, found.no_overview);
  list("serves", {
    Release: serving?.release ?? "none",
    Made: serving?.created ? moment(serving.created) : "…",
    Namespace: serving?.namespace ?? "none",
    "Items that can be recommended": number(highest(samples, "matchloop_items")),
    "Experiments running": number(highest(samples, "matchloop_experiments")),
    "Log folded up to": serving?.offsets.join(", ") ?? "",
  });
  const answered = total(samples, "matchloop_http_requests_total");
  const rate = before ? (answered - before.answered) / ((performance.now() - before.at) / 1000) : null;
  before = { at: performance.now(), answered };
  const ofRecommendations = ({ route }) => route === RECOMMENDATIONS;
  list("traffic", {
    "Requests a second now": rate === null ? "…" : number(Math.max(rate, 0)),
    "Requests answered": number(answered),
    "Recommendations, median": milliseconds(quantile(samples, "matchloop_http_seconds", 0.5, ofRecommendations)),
    "Recommendations, 99 %": milliseconds(quantile(samples, "matchloop_http_seconds", 0.99, ofRecommendations)),
    "Failed (5xx)": number(total(samples, "matchloop_http_requests_total", ({ status }) => status.startsWith("5"))),
    "Answered without a part": number(total(samples, "matchloop_degraded_total")),
  });
  list("learning", {
    "In use after commit, median": milliseconds(quantile(samples, "matchloop_parameter_propagation_seconds", 0.5)),
    "In use after commit, 99 %": milliseconds(quantile(samples, "matchloop_parameter_propagation_seconds", 0.99)),
    "Records not folded yet": number(total(samples, "matchloop_updater_lag_records")),
    "Records not in the lake yet": number(total(samples, "matchloop_sink_lag_records")),
    "Decisions waiting for feedback": number(total(samples, "matchloop_updater_open_decisions")),
    "Dead letters": number(total(samples, "matchloop_updater_events_total", ({ outcome }) => DEAD.includes(outcome))),
  });
  list("explored", {
    ...Object.fromEntries(Object.entries(settings.surfaces).map(([surface, share]) => [`Surface ${surface}`, share ? `${percent(share)} of places` : "nothing"])),
    ...explored(samples),
  });
  listed("audit", (found.audit ?? []).map((entry) => element("li", {}, element("span", {}, `${entry.what.replace(/^(\S+) \/v1\//, "$1 ")}${refused(entry.status)}`), element("span", { class: "quiet" }, `${entry.who}, ${moment(entry.time)}`))), "Nobody has changed anything yet.");
  list("variants", by(samples, "matchloop_decisions_total", "variant"));
  list("events", by(samples, "matchloop_updater_events_total", "outcome"));
  list("retrains", retrains(found.schedule));
  list("programs", Object.fromEntries((found.programs ?? []).map((program) => [program.name, `${program.state.toLowerCase()}${program.healthy ? "" : ", not ready"}`])));
}

// --- samples are [name, labels, value]

const named = (samples, name, only = () => true) => samples.filter(([found, labels]) => found === name && only(labels));

const total = (samples, name, only) => named(samples, name, only).reduce((sum, [, , value]) => sum + value, 0);

const highest = (samples, name) => Math.max(0, ...named(samples, name).map(([, , value]) => value));

function sums(samples, name, label) {
  const found = new Map();
  for (const [, labels, value] of named(samples, name)) found.set(labels[label], (found.get(labels[label]) ?? 0) + value);
  return [...found].sort(([, a], [, b]) => b - a);
}

const by = (samples, name, label) => Object.fromEntries(sums(samples, name, label).map(([words, count]) => [words, number(count)]));

/** Which share of a variant's places went to another item than the best by estimate. */
function explored(samples) {
  const places = new Map(sums(samples, "matchloop_places_total", "variant"));
  const shares = sums(samples, "matchloop_explored_places_total", "variant").filter(([variant]) => places.get(variant));
  return Object.fromEntries(shares.map(([variant, count]) => [`Seen, ${variant}`, `${percent(count / places.get(variant))} of places`]));
}

/** Of a histogram, as Prometheus' histogram_quantile has it: even within a bucket. Null without observations. */
function quantile(samples, name, q, only) {
  const sums = new Map();
  for (const [, labels, value] of named(samples, `${name}_bucket`, only)) {
    const edge = labels.le === "+Inf" ? Infinity : Number(labels.le);
    sums.set(edge, (sums.get(edge) ?? 0) + value);
  }
  const edges = [...sums].sort(([a], [b]) => a - b);
  const wanted = q * (edges.at(-1)?.[1] ?? 0);
  if (!wanted) return null;
  const at = edges.findIndex(([, count]) => count >= wanted);
  const [low, below] = at ? edges[at - 1] : [0, 0];
  const [high, upTo] = edges[at];
  return high === Infinity ? low : low + ((high - low) * (wanted - below)) / (upTo - below);
}

const milliseconds = (seconds) => (seconds === null ? "…" : `${(1000 * seconds).toFixed(1)}\u00a0ms`);

const moment = (when) => new Date(when).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

function retrains(schedule) {
  if (!schedule) return { Schedule: "none: `schedule.cron` and `schedule.after` set one" };
  const { last, next, running_since: since, after } = schedule;
  return {
    ...(since ? { "One runs since": moment(since) } : {}),
    ...(last ? { Last: `${moment(last.began)}: ${last.outcome}. ${last.words}` } : {}),
    ...(next ? { Next: moment(next) } : {}),
    ...(after ? { "One is due after": `${number(after)} events of feedback` } : {}),
  };
}

// --- what the log says, by `matchloop overview`

const DAY_MS = 86_400_000;

function overview(found, problem) {
  byId("earned-about").classList.toggle("down", Boolean(problem));
  if (!found) {
    byId("earned-about").textContent = problem ?? "Reading the log …";
    return;
  }
  const { trend, releases, experiments } = found;
  byId("earned-about").textContent = problem ?? found.nothing ?? `Reward per 1,000 impressions since ${moment(trend.since)}, by user with 95 % intervals, in stretches of ${stretch(trend)}. The newest still gets feedback.`;
  const bounds = (trend?.variants ?? []).flatMap(({ windows }) => windows.flatMap(({ per_thousand: one }) => (one ? [one.low ?? one.value, one.high ?? one.value] : [])));
  const range = [Math.min(...bounds), Math.max(...bounds)]; // the same for all, so that they compare
  byId("earned").replaceChildren(...(trend?.variants ?? []).map((one) => variant(one, range)));
  list("new", trend ? newItems(trend.new_items) : {});
  const challenged = releases.some(({ roles }) => roles.includes("challenger"));
  listed("releases", [...releases.map(release), ...(challenged ? [] : [element("p", { class: "quiet" }, "No challenger: the gate holds nothing back.")])], "None is kept.");
  listed("experiments", experiments.map((one) => element("p", {}, element("b", {}, `${one.name}, ${percent(one.share)} of the users. `), one.verdict)), "None runs.");
}

function stretch({ variants }) {
  const { since, until } = variants[0]?.windows[0] ?? { since: 0, until: 0 };
  const [count, word] = [[DAY_MS, "day"], [3_600_000, "hour"], [60_000, "minute"]].map(([ms, name]) => [(until - since) / ms, name]).find(([many]) => many >= 1) ?? [0, "minute"];
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

const around = (one) => (one === null ? "nothing shown" : one.low === null ? one.value.toFixed(1) : `${one.value.toFixed(1)} (${one.low.toFixed(1)} to ${one.high.toFixed(1)})`);

/** A variant's earnings, in all and over time: a line, and the interval as a band. */
function variant({ variant: name, whole, windows }, [least, most]) {
  const [width, height, left] = [300, 70, 34];
  const shown = windows.map(({ per_thousand: one }, turn) => ({ one, x: left + ((width - left) * (turn + 0.5)) / windows.length })).filter(({ one }) => one);
  const y = (value) => 4 + ((height - 8) * (most - value)) / (most - least || 1);
  const edge = (rows, end) => rows.map(({ one, x }) => `${x},${y(one[end] ?? one.value)}`).join(" ");
  const words = `${name} over time: ${shown.map(({ one }) => around(one)).join(", ")}.`;
  return element(
    "div",
    { class: "variant" },
    element("h3", {}, name),
    element("p", {}, element("b", {}, around(whole.per_thousand)), element("span", { class: "quiet" }, ` ${number(whole.decisions)} slates, ${number(whole.users)} users`)),
    svg(
      "svg",
      { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words },
      svg("line", { class: "axis", x1: left, x2: width, y1: y(least), y2: y(least) }),
      svg("text", { x: 0, y: 12 }, most.toFixed(0)),
      svg("text", { x: 0, y: height - 2 }, least.toFixed(0)),
      svg("polygon", { class: "band", points: `${edge(shown, "high")} ${edge(shown.toReversed(), "low")}` }),
      svg("polyline", { class: "line", points: edge(shown, "value") }),
      ...shown.map(({ one, x }) => svg("circle", { cx: x, cy: y(one.value), r: 2.5 })),
    ),
  );
}

const newItems = ({ items, shown, discovered }) => ({
  "Came over the API": number(items),
  "Shown so far": number(shown),
  ...Object.fromEntries(Object.entries(discovered).map(([times, count]) => [`Discovered: liked ${times === "1" ? "once" : `${times} times`} or more`, number(count)])),
});

function release({ id, roles, created, verdict }) {
  const said = verdict?.reasons.length ? `The gate holds it back: ${verdict.reasons.join("; ")}` : verdict ? "It passed the gate." : "The gate was not asked.";
  const override = verdict?.override ? ` It serves all the same: ${verdict.override}` : "";
  return element("p", {}, element("b", {}, `${roles.join(", ")}: `), `${id}${created ? `, made ${moment(created)}` : ""}. ${said}${override}`);
}

// --- what is seen

const refused = (status) => (status >= 400 ? `: refused (${status})` : "");

function links(places) {
  byId("links").replaceChildren(...Object.entries(places).map(([name, href]) => element("a", { href }, name)));
}

const listed = (id, children, otherwise) => byId(id).replaceChildren(...(children.length ? children : [element("p", { class: "quiet" }, otherwise)]));

function list(id, entries) {
  const rows = Object.entries(entries).map(([words, value]) => element("div", {}, element("dt", {}, words), element("dd", {}, value)));
  byId(id).replaceChildren(...(rows.length ? rows : [element("div", {}, element("dt", {}, "Nothing yet"), element("dd", {}, ""))]));
}

const title = async (id) => (await call("GET", pathOf(id)).catch(() => null))?.title || id;

async function lookUpUser(user) {
  const held = await call("GET", `/v1/users/${encodeURIComponent(user)}`).catch((error) => (error.status === 404 ? null : Promise.reject(error)));
  const answer = await call("POST", `${RECOMMENDATIONS}:preview`, { user_id: user, slate_size: LISTED });
  const most = Math.max(0.01, ...answer.items.map((item) => item.score));
  const items = answer.items.map(async (item) =>
    element("li", {}, element("span", {}, `${await title(item.id)} `), element("b", {}, percent(item.score)), bar(item.score, item.explanation.levels?.deviation ?? 0, most, "people"), why(item, most)),
  );
  byId("user-found").replaceChildren(
    element("p", {}, held ? `Known: ${held.history} things they did, ${held.shown} items shown, ${held.profile.join(", ") || "no attributes"}.` : "Nothing is known of this user."),
    element("p", { class: "quiet" }, `They would get now, of variant ${answer.variant}:`),
    element("ol", {}, ...(await Promise.all(items))),
  );
}

async function lookUpItem(id) {
  const item = await call("GET", pathOf(id));
  const anybody = { user_id: "nobody in particular", slate_size: 1, only: [id], repeat_shown: true };
  const { items: [found] } = await call("POST", `${RECOMMENDATIONS}:preview`, anybody);
  byId("item-found").replaceChildren(
    element("p", {}, element("b", {}, item.title || id), ` ${item.categories.join(", ")}`),
    element("p", {}, item.servable ? "It can be recommended." : "It cannot be recommended: it is not available, or not loaded yet."),
    actions(item),
    ...(found ? [element("p", { class: "quiet" }, `To somebody unknown it is worth ${percent(found.score)}:`), why(found, found.score) ?? ""] : []),
  );
  byId("item-found").querySelector("details")?.setAttribute("open", "");
}

/** What an operator may do with an item: take it out of all answers and back in, and give it a label that settings boost. */
function actions({ id, servable, ...item }) {
  const put = (words, change) =>
    element("button", { type: "button", click: () => attempt("item-found", async () => {
      await call("PUT", pathOf(id), { ...item, ...change });
      await settled(id, change.available ?? servable);
      await lookUpItem(id);
      byId("item-found").querySelector(".acts button")?.focus();
    }) }, words);
  const { available, attributes } = item;
  const labels = settings.labels.map((label) => {
    const { [label]: set, ...others } = attributes;
    return set === undefined ? put(`Boost: ${label}`, { attributes: { ...others, [label]: true } }) : put(`No longer ${label}`, { attributes: others });
  });
  return element("div", { class: "acts" }, available ? put("Ban", { available: false }) : put("Unban", { available: true }), ...labels);
}

/** Waits until this process serves an item, or serves it no longer. */
async function settled(id, servable) {
  const patience = performance.now() + SETTLED_MS;
  while ((await call("GET", pathOf(id))).servable !== servable && performance.now() < patience) await pause(LOOK_MS);
}

async function attempt(found, work) {
  try {
    await work();
  } catch (error) {
    byId(found).replaceChildren(element("p", { class: "down" }, error.message));
  }
}

function wire(form, field, found, work) {
  byId(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    await attempt(found, () => work(byId(field).value));
  });
}

async function go() {
  try {
    await look();
  } catch (error) {
    byId("news").classList.add("problem");
    byId("news").textContent = error.message;
  }
  setTimeout(go, EVERY_MS);
}

wire("of-user", "user", "user-found", lookUpUser);
wire("of-item", "item", "item-found", lookUpItem);
go();
