// Reads a file with the importer inside speedscope's own bundle and prints what it makes of it.
//
// The bundle draws the page too, which fails here, after the importer has been exposed.
import { readdirSync, readFileSync } from "node:fs";
import vm from "node:vm";

const release = "node_modules/speedscope/dist/release/";
const bundle = readdirSync(release).find((name) => /^speedscope-.*\.js$/.test(name));
const code = readFileSync(release + bundle, "utf8");
const declared = /var ([\w$]+)=\{\};[\w$]+\(\1,\{[^}]*importProfileGroupFromText[^}]*\}\);/.exec(code);
const name = declared[1];
const initialize = new RegExp(`\\(\\)=>\\(([\\w$]+)\\(\\),${name.replaceAll("$", "\\$")}\\)`).exec(code)[1];

const anything = new Proxy(function () {}, {
  get: (_, property) => (property === Symbol.toPrimitive ? () => "" : anything),
  apply: () => anything,
  construct: () => anything,
});
const context = vm.createContext({
  console: { log() {}, warn() {}, error: console.error },
  window: anything,
  document: anything,
  navigator: anything,
  location: anything,
  TextDecoder,
  TextEncoder,
  performance,
  setTimeout,
  URL,
  atob,
});
const exposing = `${declared[0]}globalThis.importer=()=>(${initialize}(),${name});`;
try {
  vm.runInContext(code.replace(declared[0], () => exposing), context);
} catch (error) {
  if (!context.importer) throw error;
}

function stack(node) {
  return node.isRoot() ? [] : [...stack(node.parent), node.frame];
}

function read(profile) {
  return {
    name: profile.getName(),
    unit: profile.getWeightUnit(),
    total: profile.getTotalWeight(),
    samples: profile.samples.map((node, at) => ({
      weight: profile.weights[at],
      frames: stack(node).map(({ name, file, line }) => ({ name, file: file ?? "", line: line ?? 0 })),
    })),
  };
}

const group = await context.importer().importProfileGroupFromText("profile", readFileSync(process.argv[2], "utf8"));
console.log(JSON.stringify({ name: group.name, profiles: group.profiles.map(read) }));
