// Judges the answers of the test beside it, as a program in JavaScript does: `node judge.mjs GLUE MODULE CASES`.
//
// CASES is a JSON file: `cases` is a list of inputs, bytes in base64, `typed` a list of addresses. Prints JSON of what came out.

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [glue, modulePath, casesPath] = process.argv.slice(2);
const { judge, attestUrl, VerifyError } = await import(pathToFileURL(glue));
const module = await WebAssembly.compile(await readFile(modulePath));
const imports = WebAssembly.Module.imports(module).length;
const bytes = (base64) => new Uint8Array(Buffer.from(base64, "base64"));
const { cases, typed } = JSON.parse(await readFile(casesPath, "utf8"));
const outcomes = [];
for (const { answer, manifest, nonce, now, memory } of cases) {
  const inputs = { answer: bytes(answer), manifest: bytes(manifest), nonce: bytes(nonce), now, memory };
  try {
    outcomes.push(await judge(module, inputs));
  } catch (error) {
    if (error.code === undefined) {
      throw error;
    }
    outcomes.push({ code: error.code, message: error.message });
  }
}
const urls = typed.map((text) => {
  try {
    return attestUrl(text, new Uint8Array(32).fill(255)).href;
  } catch (error) {
    if (error instanceof VerifyError) {
      return error.code;
    }
    throw error;
  }
});
console.log(JSON.stringify({ imports, outcomes, urls }));
