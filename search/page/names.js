// Names that a filter can be set to: those of the answers seen here, and which one is meant.

import { FIELDS, clean } from "./words.js";

const MOST = 5000; // of a field: a large support has many creators
const OFFERED = 300;

const known = new Map(Object.keys(FIELDS).map((field) => [field, new Map()])); // -> name -> plain

const plain = (name) => clean(name, 1000).normalize("NFKC").toLowerCase();

function learnOne(field, name) {
  const names = known.get(field);
  if (name && names && !names.has(name) && names.size < MOST) names.set(name, plain(name));
}

/** Takes over the names in an answer. */
export function learn(answer) {
  for (const group of answer.groups) learnOne(answer.group_by, group.value);
  for (const row of answer.rows) {
    for (const owner of row.owners) {
      for (const field of known.keys()) learnOne(field, owner[field]);
    }
  }
}

export const isKnown = (field, name) => Boolean(known.get(field)?.has(name));

/** Names to choose from, as [name, influence or null]: those of the answer first. */
export function offered(field, answer) {
  const shares = answer.group_by === field ? answer.groups.filter((group) => group.value) : [];
  const first = new Map(shares.map((group) => [group.value, group.influence]));
  const rest = [...(known.get(field)?.keys() ?? [])].filter((name) => !first.has(name));
  return [...first, ...rest.map((name) => [name, null])].slice(0, OFFERED);
}

/** What was typed as the names that it means: exactly, else but for capitals; [] if it is unknown. */
export function meant(field, typed) {
  if (isKnown(field, typed)) return [typed];
  const form = plain(typed);
  return [...(known.get(field) ?? [])].filter(([, other]) => other === form).map(([name]) => name);
}

/** Known names that have a word in common with what was typed, at most five. */
export function alike(field, typed) {
  const words = plain(typed).split(" ").filter((word) => word.length > 2);
  const shared = (form) => words.filter((word) => ` ${form}`.includes(` ${word}`)).length;
  return [...(known.get(field) ?? [])]
    .map(([name, form]) => [name, shared(form)])
    .filter(([, number]) => number > 0)
    .sort((a, b) => b[1] - a[1])
    .slice(0, 5)
    .map(([name]) => name);
}
