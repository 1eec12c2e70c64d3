"use strict";
// Everything that comes from outside is set as text, never as markup.

const EVERY_MS = 3000;
const ROWS_MAX = 200;
const PATIENCE_MS = 30000;
// Beyond the calendar of Date.
const TIME_MAX_MS = 8.64e15;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// Long hashes by their beginning; the whole one shows when the pointer rests on it.
function hash(text) {
  if (!text) return element("span", "–", "soft");
  const made = element("code", text.slice(0, 12));
  made.title = text;
  return made;
}

function table(id, heads, rows, none, most = ROWS_MAX) {
  const made = document.getElementById(id);
  made.replaceChildren();
  if (rows.length === 0) {
    const cell = element("td", none, "soft");
    made.append(element("tbody"));
    made.lastChild.append(element("tr"));
    made.lastChild.lastChild.append(cell);
    return;
  }
  const head = element("thead");
  const line = element("tr");
  for (const text of heads) {
    const cell = element("th", text);
    cell.scope = "col";
    line.append(cell);
  }
  head.append(line);
  const body = element("tbody");
  for (const cells of rows.slice(0, most)) {
    const row = element("tr");
    for (const cell of cells) {
      const made = element("td");
      made.append(cell === null || cell === undefined ? "–" : cell);
      row.append(made);
    }
    body.append(row);
  }
  if (rows.length > most) {
    const row = element("tr");
    const cell = element("td", "and " + (rows.length - most) + " more", "soft");
    cell.colSpan = heads.length;
    row.append(cell);
    body.append(row);
  }
  made.append(head, body);
}

function time(ms) {
  if (ms === undefined) return "–";
  return ms > TIME_MAX_MS ? ms + " ms" : new Date(ms).toISOString().replace("T", " ").slice(0, 19) + " UTC";
}

function age(ms) {
  if (ms === null || ms === undefined) return "–";
  const s = Math.round(ms / 1000);
  if (s < 120) return s + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  if (s < 172800) return Math.round(s / 3600) + " h";
  return Math.round(s / 86400) + " days";
}

// Records of every Coordinator, the newest first, each with whose it is.
function records(state, sort) {
  const all = state.replicas.flatMap((replica) =>
    replica.decisions[sort].map((record) => ({ ...record, of: replica.status ? replica.status.place : replica.address })));
  return all.sort((one, other) => other.time_ms - one.time_ms);
}

function names(subject) {
  return (subject.names || []).join(", ") || null;
}

// All decisions that `is` picks, since each Coordinator started. A Coordinator that does not count them has those that it remembers.
function count(state, sort, is) {
  return state.replicas.reduce((sum, replica) => sum + (replica.since_ms === null
    ? replica.decisions[sort].length
    : replica.counts.filter(is).reduce((sum, one) => sum + one.count, 0)), 0);
}

function numbers(state) {
  const serving = state.replicas.filter((replica) => replica.status && !replica.status.not_serving_because).length;
  const lost = state.replicas.reduce((sum, replica) => sum + ((replica.status && replica.status.audit && replica.status.audit.lost) || 0), 0);
  const shown = [
    ["serving, of those asked", serving + " of " + state.replicas.length, "serving"],
    ["manifests", state.history ? state.history.steps.length : "–", "manifests"],
    ["issued since each started", count(state, "issued", (one) => one.kind === "certificate" && one.outcome === "done"), "issued-count"],
    ["refused or failed since then", count(state, "refused", (one) => one.outcome === "refused" || one.outcome === "failed"), "refused-count"],
  ];
  const list = document.getElementById("numbers");
  list.replaceChildren();
  for (const [name, value, id] of shown) {
    const box = element("div");
    const number = element("dd", String(value));
    number.id = id;
    box.append(element("dt", name), number);
    list.append(box);
  }
  const alarm = document.getElementById("lost");
  alarm.hidden = lost === 0;
  alarm.textContent = lost + " decision(s) could not be recorded; the audit streams say where.";
}

function cluster(state) {
  table("replicas", ["asked", "place", "role", "serves", "manifest", "confirmed", "counts since", "audit stream"], state.replicas.map((replica) => {
    const status = replica.status;
    if (!status) return [replica.address, null, null, element("span", replica.error, "bad"), null, null, null, null];
    return [
      replica.address,
      status.place,
      status.role,
      status.not_serving_because ? element("span", status.not_serving_because, "bad") : element("span", "yes", "good"),
      status.active ? hash(status.active.manifest_sha256) : null,
      status.quorum ? element("span", age(status.quorum.confirmed_ago_ms) + " ago", status.quorum.confirmed ? "" : "bad") : null,
      replica.since_ms === null ? null : time(replica.since_ms),
      replica.decisions_error ? element("span", replica.decisions_error, "bad") : status.audit ? "record " + status.audit.sequence : null,
    ];
  }), "none was asked");
  const seen = state.replicas.map((replica) => replica.status && replica.status.cluster).filter(Boolean);
  const newest = seen.sort((one, other) => other.term - one.term || other.applied - one.applied)[0];
  table("members", ["member", "identity", "role", "heard", "lag", "evidence"], (newest ? newest.members : []).map((member) => [
    member.place,
    element("code", member.node),
    member.leader ? "leader" : member.voter ? "voter" : "learner",
    member.heard_ago_ms === null ? null : age(member.heard_ago_ms) + " ago",
    member.lag,
    member.evidence ? member.evidence.tee + (member.evidence.insecure ? " INSECURE" : "") + ", " + member.evidence.reference : null,
  ]), "there is no cluster");
}

function decisions(state) {
  table("refused", ["when", "what", "why", "who", "policy", "failed checks", "by"], records(state, "refused").map((record) => [
    time(record.time_ms),
    record.kind,
    element("span", record.reason || record.outcome, "bad"),
    names(record.subject),
    hash(record.subject.policy),
    (record.subject.checks || []).join(", ") || null,
    record.of,
  ]), "nothing");
  table("issued", ["when", "for", "policy", "TEE", "serial number", "until", "by"], records(state, "issued").map((record) => [
    time(record.time_ms),
    names(record.subject),
    hash(record.subject.policy),
    (record.subject.tee || "–") + (record.subject.insecure ? " INSECURE" : ""),
    hash(record.subject.serial),
    time(record.subject.expires_ms),
    record.of,
  ]), "none");
  table("other", ["when", "what", "outcome", "details", "by"], records(state, "other").map((record) => {
    const details = Object.entries(record.subject).map(([name, value]) => {
      const text = Array.isArray(value) ? value.join(", ") : String(value);
      return name + " " + (text.length > 24 ? text.slice(0, 12) + "…" : text);
    });
    return [time(record.time_ms), record.kind, record.reason || record.outcome, details.join(", ") || null, record.of];
  }), "none");
}

function history(state) {
  const chain = document.getElementById("chain");
  const place = document.getElementById("steps");
  place.replaceChildren();
  if (!state.history) {
    chain.textContent = "No Coordinator that serves has a history.";
    return;
  }
  const problems = state.history.problems;
  chain.textContent = problems.length === 0 ? "The newest first. The chain of hashes is as it should be." : "The history is broken: " + problems.join("; ");
  chain.className = problems.length === 0 ? "soft" : "alarm";
  for (const step of [...state.history.steps].reverse()) {
    const box = element("div", undefined, "step");
    box.append(element("h3", step.generation + ". " + step.event.replaceAll("_", " ").replaceAll("-", " ")));
    const line = element("p", "manifest ", "soft");
    line.append(hash(step.manifest_sha256), " · transition ", hash(step.transition));
    box.append(line);
    const changes = step.changes;
    if (changes.note) box.append(element("p", changes.note, "soft"));
    for (const owner of changes.owners) box.append(element("p", owner));
    if (changes.values.length > 0) {
      const made = element("table");
      made.id = "diff-" + step.generation;
      box.append(made);
      place.append(box);
      table(made.id, ["changed", "before", "after"], changes.values.map((change) => [
        element("code", change.path),
        change.before === null ? element("span", "absent", "soft") : element("code", change.before),
        change.after === null ? element("span", "absent", "soft") : element("code", change.after),
      ]), "", changes.values.length);
    }
    place.append(box);
  }
}

function draw(state) {
  document.getElementById("insecure").hidden = !state.insecure;
  numbers(state);
  cluster(state);
  decisions(state);
  history(state);
}

async function refresh() {
  const taken = document.getElementById("taken");
  let state = null;
  try {
    const answer = await fetch("api/state", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error("HTTP status " + answer.status);
    state = await answer.json();
  } catch (error) {
    document.body.classList.add("stale");
    taken.textContent = "`contrast dashboard` does not answer (" + error.message + "); what is shown is old";
  }
  if (state !== null) {
    try {
      draw(state);
      document.body.classList.remove("stale");
      taken.textContent = "attested against manifest " + state.manifest.slice(0, 12) + ", " + time(state.taken_ms);
      document.documentElement.dataset.taken = String(state.taken_ms);
    } catch (error) {
      document.body.classList.add("stale");
      taken.textContent = "this page cannot show what was answered (" + error.message + "); `contrast status` can";
    }
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
