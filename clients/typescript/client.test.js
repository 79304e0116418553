/** Without an API: what is sent again and what not, and what is said of failures. `node --test` */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { ApiError, Client, NoAnswer } from "matchloop-client";

const CLICK = { decision_id: "d1", item_id: "i1", type: "click" };
const TAKEN = () => Response.json({ events: [{ event_id: "e", status: "accepted" }] }, { status: 202 });
const BUSY = (status, seconds) => () =>
  Response.json({ error: "busy", message: "Busy." }, { status, headers: { "Retry-After": String(seconds) } });
const LOST = () => {
  throw new TypeError("fetch failed");
};

/** A client, and the requests that it sent: they are answered with what `replies` make, the last one for ever. */
function served(replies, settings = {}) {
  const sent = [];
  const fetch = async (url, options) => {
    sent.push({ url, headers: options.headers, ...JSON.parse(options.body) });
    return replies[Math.min(sent.length, replies.length) - 1]();
  };
  return [new Client("http://api.example/", { fetch, ...settings }), sent];
}

for (const [name, first] of [["503", BUSY(503, 0)], ["429", BUSY(429, 0)], ["no answer", LOST]]) {
  test(`feedback is sent again as it was after ${name}`, async () => {
    const [client, sent] = served([first, TAKEN]);
    assert.equal((await client.sendFeedback(CLICK)).events[0].status, "accepted");
    assert.equal(sent.length, 2);
    assert.deepEqual(sent[0], sent[1]);
    assert.equal(sent[0].url, "http://api.example/v1/feedback");
    assert.match(sent[0].events[0].event_id, /^[0-9a-f]{32}$/);
  });
}

test("a recommendation whose answer was lost is not asked for again", async () => {
  const [client, sent] = served([LOST]);
  await assert.rejects(client.recommend({ user_id: "u" }), NoAnswer);
  assert.equal(sent.length, 1);
});

test("nothing is sent again later than wanted", async () => {
  for (const [reply, settings] of [[BUSY(503, 0), { retryMs: 0 }], [BUSY(429, 3600), {}]]) {
    const [client, sent] = served([reply], settings);
    await assert.rejects(client.sendEvents({ user_id: "u", item_id: "i", type: "like", event_id: "mine" }), { code: "busy" });
    assert.deepEqual(sent.map(({ events }) => events[0].event_id), ["mine"]);
  }
});

test("an error says status, code and each broken rule", async () => {
  const details = [{ field: "slate_size", value: 0, rule: "must be at least 1" }];
  const [client] = served([() => Response.json({ error: "invalid_input", message: "No.", details }, { status: 422 })]);
  await assert.rejects(client.recommend({ user_id: "u", slate_size: 0 }), (error) => {
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.code, error.reason, error.details], [422, "invalid_input", "No.", details]);
    assert.match(error.message, /slate_size is 0: must be at least 1$/);
    return true;
  });
});

test("answers of somebody else are no surprise", async () => {
  for (const status of [200, 502]) {
    const [client] = served([() => new Response("<html>", { status })]);
    await assert.rejects(client.recommend({ user_id: "u" }), { status, code: "unreadable" });
  }
});

test("the key is sent and shown to nobody", async () => {
  const [client, sent] = served([TAKEN], { apiKey: "secret\n" });
  await client.sendFeedback(CLICK);
  assert.equal(sent[0].headers.Authorization, "Bearer secret");
  assert.doesNotMatch(inspect(client, { showHidden: true, depth: 9 }) + JSON.stringify(client), /secret/);
});
