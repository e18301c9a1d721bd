// Answers a line of JSON for each line of JSON: what a smoke test talks to. node ask.mjs PACKAGE
import { createInterface } from "node:readline";

const { load } = await import(process.argv[2]);
const { entered, parse } = await import(`${process.argv[2]}/golden`);
let model;
try {
  model = await load();
} catch (error) {
  process.stderr.write(`${error.name}: ${error.message.split("\n")[0]}\n`);
  process.exit(1);
}

// JSON.stringify knows no bigint: it is marked, and loses its marks and quotes afterwards
const mark = (_, value) => (typeof value === "bigint" ? `\uE000${value}\uE000` : value);
const written = (said) => JSON.stringify(said, mark).replace(/"\uE000(-?\d+)\uE000"/g, "$1");

for await (const line of createInterface({ input: process.stdin })) {
  let said;
  try {
    const { inputs } = parse(line);
    for (const values of Object.values(inputs)) {
      if (!Array.isArray(values)) throw new TypeError("an input is a list");
    }
    said = { outputs: await model.predict(entered(inputs)) };
  } catch (error) {
    said = { error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(`${written(said)}\n`);
}
