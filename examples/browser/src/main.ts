// Runs the examples that the address of the page names, or all: ?run=unary&run=stream.

import { cancel, deadline, stream, unary } from "./calls";
import { chat } from "./connect";
import { describe, errors } from "./failures";
import { tools } from "./tools";

const EXAMPLES = { unary, stream, deadline, cancel, tools, errors };

const named = new URL(location.href).searchParams.getAll("run");
const output = document.querySelector("#output")!;
const print = (text: string) => output.append(text);
document.title = "running";
try {
  for (const [name, example] of Object.entries(EXAMPLES)) {
    if (named.length > 0 && !named.includes(name)) continue;
    print(`== ${name}\n`);
    await example(chat, print);
  }
  document.title = "done";
} catch (error) {
  print(describe(error));
  document.title = "failed";
}
