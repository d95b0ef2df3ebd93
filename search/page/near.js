// Near-equal training images, folded into one tile: the service says which they are.

import { json } from "./api.js";
import { byId } from "./dom.js";
import { count } from "./words.js";

const PATIENCE_MS = 400; // an answer is shown unfolded rather than later than this

const known = new WeakMap(); // answer -> {folds, compared}, null where the service could not say
let on = true;

/**
 * Finds the near-equal images of an answer. Resolves when they are known, or when waiting longer
 * would keep the answer back; `late()` is called when they come after that.
 */
export async function findNear(answer, late) {
  if (known.has(answer) || answer.rows.length < 2) return;
  let waiting = true;
  const asked = json(`/v1/attributions/${encodeURIComponent(answer.id)}/near-equal`)
    .catch(() => null)
    .then((found) => {
      known.set(answer, found);
      if (!waiting && found) late();
    });
  await Promise.race([asked, new Promise((done) => setTimeout(done, PATIENCE_MS))]);
  waiting = false;
}

/**
 * The answer as it is looked at: near-equal rows are one row, whose influence, interval and owners
 * are those of all its `members`. Nothing is lost: the influences add up to the same.
 */
export function folded(answer) {
  const folds = known.get(answer)?.folds ?? [];
  if (!on || folds.length === 0) return answer;
  const by = new Map(answer.rows.map((row) => [row.rank, row]));
  const rows = new Map(by);
  for (const ranks of folds) {
    const members = ranks.map((rank) => by.get(rank));
    for (const rank of ranks) rows.delete(rank);
    rows.set(ranks[0], together(members));
  }
  const sorted = [...rows.values()].sort((a, b) => b.influence - a.influence || a.rank - b.rank);
  return { ...answer, rows: sorted, given: answer.rows.length };
}

/** One row that stands for its members. An interval is of a weight over one sum: ends add up. */
function together(members) {
  const sum = (of) => members.reduce((total, row) => total + of(row), 0);
  return {
    ...members[0],
    influence: sum((row) => row.influence),
    interval: [0, 1].map((end) => Math.min(sum((row) => row.interval[end]), 1)),
    owners: members.flatMap((row) => row.owners),
    members,
  };
}

/** The switch; `changed()` is called when it is turned. */
export function readyNear(changed) {
  byId("near").addEventListener("change", (event) => {
    on = event.target.checked;
    changed();
  });
}

/** What the switch would fold, or has folded. */
export function showNear(answer) {
  const found = known.get(answer);
  const gone = (found?.folds ?? []).reduce((sum, ranks) => sum + ranks.length - 1, 0);
  byId("near-field").hidden = !found || found.compared < 2;
  byId("near").checked = on;
  byId("near").disabled = gone === 0;
  byId("near-count").textContent = gone === 0 ? "none here" : `${count(gone)} ${on ? "folded" : "to fold"}`;
}
