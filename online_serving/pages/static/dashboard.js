// The dashboard: what `matchloop status` and the metrics of the processes say, and what the API says of a user or an item.

import { bar, call, element, number, pathOf, percent, settings, why } from "./page.js";

const byId = (id) => document.getElementById(id);

const EVERY_MS = 5000;
const RECOMMENDATIONS = "/v1/recommendations";
const DEAD = ["dead", "unreadable"]; // outcomes of events that are dead letters
const LISTED = 8; // items of a user

let before = null; // the last look: { at, answered }

async function look() {
  const [serving, found] = await Promise.all([call("GET", "/v1/parameters").catch(() => null), call("GET", "/dashboard.json")]);
  const samples = Object.values(found.metrics ?? {}).flat();
  const problems = (found.programs ?? []).flatMap((program) => [...(program.problem ? [`${program.name}: ${program.problem}`] : []), ...program.quarantined]);
  byId("news").classList.toggle("problem", problems.length > 0 || serving === null);
  const words = problems.join(" ") || (serving ? "Everything works." : "No release serves yet.");
  if (byId("news").textContent !== words) byId("news").textContent = words; // said once, not every five seconds
  if (found.endpoints?.mlflow) {
    byId("mlflow").hidden = false;
    byId("mlflow").href = found.endpoints.mlflow;
  }
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
  list("explored", Object.fromEntries(Object.entries(settings.surfaces).map(([surface, share]) => [`Surface ${surface}`, share ? `${percent(share)} of places` : "nothing"])));
  list("variants", by(samples, "matchloop_decisions_total", "variant"));
  list("events", by(samples, "matchloop_updater_events_total", "outcome"));
  list("retrains", retrains(found.schedule));
  list("programs", Object.fromEntries((found.programs ?? []).map((program) => [program.name, `${program.state.toLowerCase()}${program.healthy ? "" : ", not ready"}`])));
}

// --- samples are [name, labels, value]

const named = (samples, name, only = () => true) => samples.filter(([found, labels]) => found === name && only(labels));

const total = (samples, name, only) => named(samples, name, only).reduce((sum, [, , value]) => sum + value, 0);

const highest = (samples, name) => Math.max(0, ...named(samples, name).map(([, , value]) => value));

function by(samples, name, label) {
  const sums = new Map();
  for (const [, labels, value] of named(samples, name)) sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value);
  return Object.fromEntries([...sums].sort(([, a], [, b]) => b - a).map(([words, count]) => [words, number(count)]));
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

const moment = (ms) => new Date(ms).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

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

// --- what is seen

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
    ...(found ? [element("p", { class: "quiet" }, `To somebody unknown it is worth ${percent(found.score)}:`), why(found, found.score) ?? ""] : []),
  );
  byId("item-found").querySelector("details")?.setAttribute("open", "");
}

function wire(form, field, found, work) {
  byId(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await work(byId(field).value);
    } catch (error) {
      byId(found).replaceChildren(element("p", { class: "down" }, error.message));
    }
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
