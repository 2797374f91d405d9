// Runs the examples that the command line names, or all: node dist/main.js unary stream.

import type { ServiceError } from "@grpc/grpc-js";
import { cancel, deadline, stream, unary } from "./calls.js";
import { connect } from "./connect.js";
import { describe, errors } from "./failures.js";
import { tools } from "./tools.js";

const EXAMPLES = { unary, stream, deadline, cancel, tools, errors };

const named = process.argv.slice(2);
const { client, caller } = connect();
try {
  for (const [name, example] of Object.entries(EXAMPLES)) {
    if (named.length > 0 && !named.includes(name)) continue;
    console.log("==", name);
    await example(caller);
  }
} catch (error) {
  console.error(describe(error as ServiceError));
  process.exitCode = 1;
} finally {
  client.close();
}
