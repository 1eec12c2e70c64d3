// Judges the answers of the test beside it, as a program in JavaScript does: `node judge.mjs GLUE MODULE CASES`.
//
// CASES is a file with a JSON list of inputs, bytes in base64. Prints a JSON list of what came out.

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [glue, modulePath, casesPath] = process.argv.slice(2);
const { judge } = await import(pathToFileURL(glue));
const module = await WebAssembly.compile(await readFile(modulePath));
const imports = WebAssembly.Module.imports(module).length;
const bytes = (base64) => new Uint8Array(Buffer.from(base64, "base64"));
const outcomes = [];
for (const { answer, manifest, nonce, now, memory } of JSON.parse(await readFile(casesPath, "utf8"))) {
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
console.log(JSON.stringify({ imports, outcomes }));
