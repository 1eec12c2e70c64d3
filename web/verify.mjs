
// Verifies answers of a Coordinator's attest API with the WebAssembly module of crates/sdk-wasm.
//
// `judge` works in every runtime of JavaScript and does no input or output. Everything behind it is the page, `verify.html`.

/** Version of the module's functions that this file knows. */
const ABI_VERSION = 1;
/** The module's number for each input. */
const SLOTS = { answer: 0, manifest: 1, nonce: 2, memory: 3 };
const NONCE_BYTES = 32;
/** Of the attest API. */
const PORT = "1314";
/** As much as the module reads. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
const MANIFEST_BYTES_MAX = 16 * 1024 * 1024;
const PATIENCE_MILLISECONDS = 60_000;
const VERDICTS = ["verified", "refused"];

/** What went wrong, in words for the person at the page. */
export class VerifyError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "VerifyError";
    this.code = code;
  }
}

/**
 * Judges one answer.
 *
 * @param {WebAssembly.Module} module `verify.wasm`, compiled
 * @param {{answer: Uint8Array, manifest: Uint8Array, nonce: Uint8Array, now: number, memory?: {transitions?: string[], root_ca?: string}}} inputs
 *   `nonce` has to be random and drawn for this very question; `now` is in milliseconds since 1970, as `Date.now()`
 * @returns {Promise<object>} the report of docs/reference/sdk.md; ask its `verdict` and `insecure`
 * @throws {VerifyError} when there is no verdict; `code` tells why
 */
export async function judge(module, { answer, manifest, nonce, now, memory }) {
  // A new instance for each answer: whatever one did to the memory, the next one does not see it.
  const { exports } = await WebAssembly.instantiate(module, {});
  const version = exports.contrast_abi_version();
  if (version !== ABI_VERSION) {
    throw new VerifyError("ABI", `expected version ${ABI_VERSION} of the module, found ${version}`);
  }
  const inputs = { answer, manifest, nonce };
  if (memory !== undefined) {
    inputs.memory = new TextEncoder().encode(JSON.stringify(memory));
  }
  for (const [name, bytes] of Object.entries(inputs)) {
    // Addresses are unsigned, and JavaScript gets them signed.
    const start = exports.contrast_input(SLOTS[name], bytes.length) >>> 0;
    if (start === 0) {
      throw new VerifyError("INPUT_TOO_LARGE", `the ${name} is too large: ${bytes.length} bytes`);
    }
    new Uint8Array(exports.memory.buffer, start, bytes.length).set(bytes);
  }
  const code = exports.contrast_verify(now);
  const start = exports.contrast_output() >>> 0;
  const output = new Uint8Array(exports.memory.buffer, start, exports.contrast_output_length());
  const outcome = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(output));
  if (outcome.error) {
    throw new VerifyError(outcome.error.code, outcome.error.message);
  }
  const report = outcome.report;
  if (report === undefined || report.verdict !== VERDICTS[code]) {
    throw new VerifyError("INTERNAL", "the module contradicts itself");
  }
  return report;
}

/**
 * Where to ask, from what a person types: scheme and path are added where they are missing, and port 1314 where there is no scheme either.
 *
 * @throws {VerifyError} when it is no such address
 */
export function attestUrl(typed, nonce) {
  const text = typed.trim();
  let url;
  try {
    url = new URL(text.includes("://") ? text : `http://${text}`);
    if (!text.includes("://") && !/^[^/]*:\d+(\/|$)/.test(text)) {
      url.port = PORT;
    }
  } catch {
    throw new VerifyError("BAD_ADDRESS", "expected an address such as http://coordinator.example:1314");
  }
  if (!["http:", "https:"].includes(url.protocol) || url.username || url.password) {
    throw new VerifyError("BAD_ADDRESS", "expected an address that begins with http:// or https://, without a user name");
  }
  if (url.pathname === "/") {
    url.pathname = "/v1/attest";
  }
  url.hash = "";
  url.search = new URLSearchParams({ nonce: base64url(nonce) });
  return url;
}

function base64url(bytes) {
  const base64 = btoa(String.fromCharCode(...bytes));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Text of strangers in one line: what is not printable, or turns the text around, is written out. */
function printable(text) {
  const escaped = String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (found) => `\\u{${found.codePointAt(0).toString(16)}}`);
  return escaped.length > 500 ? `${escaped.slice(0, 500)} ...` : escaped;
}

async function ask(url) {
  if (location.protocol === "https:" && url.protocol === "http:") {
    throw new VerifyError("MIXED_CONTENT", "this page came over HTTPS, and browsers do not let such a page ask a plain HTTP address: save the page "
      + "and open the file, or ask through a proxy with TLS, which need not be trusted");
  }
  let response;
  let body;
  try {
    response = await fetch(url, {
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(PATIENCE_MILLISECONDS),
    });
    body = await read(response);
  } catch (error) {
    if (error instanceof VerifyError) {
      throw error;
    }
    throw new VerifyError("NO_ANSWER", `no answer from ${url.origin}: nothing listens there, it is no attest API, or the browser does not let this page `
      + `ask it (${printable(error.message)})`);
  }
  if (response.status !== 200) {
    throw new VerifyError("REFUSED_QUESTION", `${url.origin} gave no proof, status ${response.status}${reason(body)}`);
  }
  return body;
}

async function read(response) {
  const chunks = [];
  let length = 0;
  for (let reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    length += value.length;
    if (length > ANSWER_BYTES_MAX) {
      await reader.cancel();
      throw new VerifyError("ANSWER_TOO_LARGE", `the answer has more than ${ANSWER_BYTES_MAX} bytes`);
    }
    chunks.push(value);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** What the attest API says about an error; nothing when something else answered. */
function reason(body) {
  try {
    const { code, message } = JSON.parse(new TextDecoder().decode(body)).error;
    return `: ${printable(code)}: ${printable(message)}`;
  } catch {
    return ", without a reason: is it an attest API?";
  }
}

// From here on, the page. Every text goes through `textContent`, so that none can become markup.

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) {
    made.textContent = text;
  }
  if (kind !== undefined) {
    made.className = kind;
  }
  return made;
}

function section(result, title) {
  result.append(element("h3", title));
}

/** A table; cells are texts or elements. */
function table(result, head, rows) {
  const made = element("table");
  const titles = made.createTHead().insertRow();
  for (const title of head) {
    const cell = element("th", title);
    cell.scope = "col";
    titles.append(cell);
  }
  const body = made.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const cell of cells) {
      row.append(cell instanceof Element ? cell : element("td", cell));
    }
  }
  const frame = element("div", undefined, "scroll");
  frame.tabIndex = 0;
  frame.append(made);
  result.append(frame);
}

function checks(result, title, rows) {
  section(result, title);
  table(result, ["Result", "Check", "Expected", "Found"], rows.map((row) => {
    const name = element("td", row.name);
    name.append(element("span", row.hint ? `${row.meaning} ${row.hint}` : row.meaning, "meaning"));
    return [element("td", row.passed ? "passed" : "FAILED", row.passed ? "passed" : "failed"), name, row.expected, row.found];
  }));
}

function download(name, pem) {
  const button = element("button", `Save ${name}`);
  button.type = "button";
  button.addEventListener("click", () => {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([pem], { type: "application/x-pem-file" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  return button;
}

function proven(result, { evidence, transitions, authorities, root_ca, mesh_ca }) {
  section(result, "Certificates");
  const row = (name, facts) => [name, facts.subject, facts.sha256, `${facts.not_before} to ${facts.not_after}`];
  table(result, ["Certificate", "Subject", "SHA-256", "Valid"], [
    row("Mesh CA: trust it to reach the workloads of exactly this manifest", authorities.mesh),
    row("Root CA: the same for as long as the deployment exists", authorities.root),
  ]);
  const files = element("p");
  files.append(download("mesh-ca.pem", mesh_ca), download("coordinator-root-ca.pem", root_ca));
  result.append(files);
  section(result, "Note this for the next time");
  const latest = element("p", "Latest transition: ");
  const hash = element("code", transitions.at(-1));
  hash.id = "latest";
  latest.append(hash);
  result.append(latest);
  section(result, "Evidence");
  table(result, ["What", "Value"], [
    ["TEE", evidence.insecure ? `${evidence.tee}, made by software` : evidence.tee],
    ["Reference value", evidence.reference],
    ["Launch measurement", evidence.launch_measurement],
    ["Policy of the Coordinator", evidence.policy_sha256],
    ["Hardware", evidence.hardware_id || "hidden"],
    ...evidence.tcb.map(({ part, version }) => [`Version: ${part}`, version]),
  ]);
}

function allowed(result, { workloads, workload_owners, workload_owner_threshold, seedshare_owners, seedshare_threshold }) {
  section(result, "What your manifest allows");
  table(result, ["Role", "Names in certificates", "SHA-256 of the policy"],
    workloads.map(({ role, names, policy_sha256 }) => [role, names.join(", ") || "none", policy_sha256]));
  const needed = (owners, threshold) => (owners.length === 0 ? "nobody" : `${threshold} of ${owners.length} owners`);
  result.append(
    element("p", `To change it takes ${needed(workload_owners, workload_owner_threshold)}; `
      + `to recover the deployment, ${needed(seedshare_owners, seedshare_threshold)}.`),
  );
}

function show(result, origin, report) {
  const rows = report.checks;
  const failed = rows.filter((row) => !row.passed);
  // The verdict is the module's; green is only what has no failed check and something to show for it.
  const verified = report.verdict === "verified" && rows.length > 0 && failed.length === 0 && report.proven !== null;
  const word = verified ? `Verified${report.insecure ? " (INSECURE)" : ""}` : "Refused";
  document.title = `${word}: ${origin}`;
  const heading = element("h2", word);
  heading.id = "verdict";
  const box = element("div", undefined, verified ? (report.insecure ? "insecure" : "verified") : "refused");
  box.append(heading, element("p", verified
    ? `${origin} enforces exactly this manifest: all ${rows.length} checks passed at ${report.verified_at}.`
    : `Do not trust this deployment: ${failed.length} of ${rows.length} checks failed.`));
  if (report.insecure) {
    box.append(element("p", "The manifest accepts a software TEE: no hardware protects anything, and whoever holds its keys can read and change "
      + "everything."));
  }
  result.append(box);
  if (failed.length > 0) {
    checks(result, "What failed", failed);
  }
  if (verified) {
    proven(result, report.proven);
  }
  if (report.allowed) {
    allowed(result, report.allowed);
  }
  checks(result, "Every check", rows);
}

function complain(result, error) {
  document.title = "No verdict";
  const heading = element("h2", "No verdict");
  heading.id = "verdict";
  const box = element("div", undefined, "problem");
  const code = error instanceof VerifyError ? error.code : "INTERNAL";
  box.append(heading, element("p", printable(error.message)), element("p", `Nothing was proven. (${code})`));
  result.append(box);
}

async function manifestOf(input) {
  const [file] = input.files;
  if (file.size > MANIFEST_BYTES_MAX) {
    throw new VerifyError("BAD_MANIFEST", `the manifest has ${file.size} bytes, at most ${MANIFEST_BYTES_MAX} are read`);
  }
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch (error) {
    throw new VerifyError("BAD_MANIFEST", `the manifest cannot be read; choose it again (${error.message})`);
  }
}

async function verify(module) {
  const field = (id) => document.getElementById(id);
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const url = attestUrl(field("address").value, nonce);
  const manifest = await manifestOf(field("manifest"));
  const transition = field("transition").value.trim();
  const memory = transition === "" ? undefined : { transitions: [transition] };
  const answer = await ask(url);
  return [url.origin, await judge(await module, { answer, manifest, nonce, now: Date.now(), memory })];
}

function start() {
  const form = document.getElementById("form");
  const button = document.getElementById("verify");
  const result = document.getElementById("result");
  const decoded = Uint8Array.from(atob(document.getElementById("module").textContent.trim()), (char) => char.charCodeAt(0));
  const module = WebAssembly.compile(decoded);
  // Whoever verifies is told; until then it is no failure of anything.
  module.catch(() => {});
  const title = document.title;
  const clear = () => {
    result.replaceChildren();
    result.hidden = true;
    document.title = title;
  };
  // A verdict about other inputs must not stay.
  form.addEventListener("input", clear);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clear();
    button.disabled = true;
    for (const input of form.elements) {
      input.disabled = true;
    }
    try {
      show(result, ...(await verify(module)));
    } catch (error) {
      result.replaceChildren();
      complain(result, error);
    }
    for (const input of form.elements) {
      input.disabled = false;
    }
    result.hidden = false;
    result.focus();
  });
}

if (typeof document !== "undefined") {
  addEventListener("DOMContentLoaded", start);
}
