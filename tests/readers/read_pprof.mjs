// Reads a pprof file with pprof-format and prints what is in it.
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { Profile } from "pprof-format";

const profile = Profile.decode(gunzipSync(readFileSync(process.argv[2])));
const text = (index) => profile.stringTable.strings[Number(index)];
const byId = (items) => new Map(items.map((item) => [Number(item.id), item]));
const locations = byId(profile.location);
const functions = byId(profile.function);
const mappings = byId(profile.mapping);

function frame(id) {
  const location = locations.get(Number(id));
  const called = functions.get(Number(location.line[0].functionId));
  const mapping = mappings.get(Number(location.mappingId));
  return {
    name: text(called.name),
    file: text(called.filename),
    first_line: Number(called.startLine),
    line: Number(location.line[0].line),
    mapping: mapping ? text(mapping.filename) : null,
    build_id: mapping ? text(mapping.buildId) : null,
  };
}

function value(label) {
  return Number(label.str) ? text(label.str) : Number(label.num);
}

console.log(
  JSON.stringify({
    types: profile.sampleType.map((type) => [text(type.type), text(type.unit)]),
    period: Number(profile.period),
    samples: profile.sample.map((sample) => ({
      values: sample.value.map(Number),
      labels: Object.fromEntries(sample.label.map((label) => [text(label.key), value(label)])),
      frames: [...sample.locationId].reverse().map(frame),
    })),
  }),
);
