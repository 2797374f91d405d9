// Runs OpenAI's SDK for Node for a test.
//
//     node run.mjs openai        the SDK, by its name in package.json
//
//     stdin   {"case": "create", "options": {…}, "arguments": {…}}    one line each
//     stdout  {"result": …} or {"error": {"class": …, "status": …}}   one line each
//
// A case is a function of `cases.mjs`; the options are those of the SDK's client.

import { createInterface } from "node:readline";

import { cases, described } from "./cases.mjs";

const sdk = process.argv[2];
const { default: OpenAI } = await import(sdk);
const zod = await import(`${sdk}/helpers/zod`);

async function answer({ case: name, options, arguments: given }) {
  try {
    const result = await cases[name]({ client: new OpenAI(options), OpenAI, options, zod }, given);
    return { result: result ?? null };
  } catch (error) {
    return { error: described(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
}
