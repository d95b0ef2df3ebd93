// The squarified treemap (Bruls, Huizing, van Wijk 2000): areas exactly proportional to values,
// tiles as near to squares as a greedy choice makes them.

import { NOTHING } from "./words.js";

/** Largest ratio of the sides of the tiles, were they laid along `side`. */
function worst(areas, sum, side) {
  const most = Math.max(...areas);
  const least = Math.min(...areas);
  return Math.max((side * side * most) / (sum * sum), (sum * sum) / (side * side * least));
}

/**
 * One rectangle {x, y, width, height} for each value, in order, within width x height.
 * Values are positive; given from large to small the tiles are squarest. Not rounded.
 */
export function squarify(values, width, height) {
  const total = values.reduce((sum, value) => sum + value, 0);
  const tiles = [];
  if (!(total > 0)) return tiles;
  const areas = values.map((value) => (value / total) * width * height);
  const free = { x: 0, y: 0, width, height };
  let start = 0;
  while (start < areas.length) {
    const side = Math.min(free.width, free.height);
    const row = [areas[start]];
    let sum = areas[start];
    let ratio = worst(row, sum, side);
    while (start + row.length < areas.length) {
      const next = areas[start + row.length];
      const withNext = worst([...row, next], sum + next, side);
      if (withNext > ratio) break;
      row.push(next);
      sum += next;
      ratio = withNext;
    }
    const upright = free.width >= free.height;
    const depth = sum / side;
    let along = 0;
    for (const area of row) {
      const length = area / depth;
      tiles.push(
        upright
          ? { x: free.x, y: free.y + along, width: depth, height: length }
          : { x: free.x + along, y: free.y, width: length, height: depth },
      );
      along += length;
    }
    if (upright) {
      free.x += depth;
      free.width = Math.max(free.width - depth, 1e-9);
    } else {
      free.y += depth;
      free.height = Math.max(free.height - depth, 1e-9);
    }
    start += row.length;
  }
  return tiles;
}

/** The same with whole-pixel edges: neighbours share an edge, a side is off by less than a pixel. */
export function snapped(tile) {
  const x = Math.round(tile.x);
  const y = Math.round(tile.y);
  return {
    x,
    y,
    width: Math.max(1, Math.round(tile.x + tile.width) - x),
    height: Math.max(1, Math.round(tile.y + tile.height) - y),
  };
}

/**
 * What the wall shows: rows that are large enough to see, the smaller ones as one tile, and the
 * remaining influence; each {kind: "row" | "folded" | "remaining", row?, rows?, influence, box}.
 * `least` is the shortest side in pixels that a row is still drawn with; the first always is.
 */
export function tilesOf(rows, remaining, width, height, least) {
  const seen = rows.filter((row) => row.influence > 0);
  const total = seen.reduce((sum, row) => sum + row.influence, 0) + Math.max(remaining, 0);
  let shown = seen.findIndex((row) => (row.influence / total) * width * height < least * least);
  if (shown === -1) shown = seen.length;
  // An area that would do can still come out as a sliver, beside something large: folded, too.
  for (;;) {
    const tiles = laidOut(seen, Math.max(shown, 1), remaining, width, height);
    const sliver = tiles.findLastIndex(
      ({ kind, box }) => kind === "row" && Math.min(box.width, box.height) < least / 2,
    );
    if (sliver < 1 || sliver >= shown) return tiles;
    shown = sliver;
  }
}

function laidOut(seen, shown, remaining, width, height) {
  // One small row alone is no fold: it stays itself.
  const kept = seen.length - shown === 1 ? seen : seen.slice(0, shown);
  const folded = seen.slice(kept.length);
  const tiles = kept.map((row) => ({ kind: "row", row, influence: row.influence }));
  if (folded.length > 0) {
    const influence = folded.reduce((sum, row) => sum + row.influence, 0);
    tiles.push({ kind: "folded", rows: folded, influence });
  }
  if (remaining > NOTHING) tiles.push({ kind: "remaining", influence: remaining });
  const places = tiles.map((tile, order) => ({ tile, order }));
  places.sort((a, b) => b.tile.influence - a.tile.influence || a.order - b.order);
  const boxes = squarify(
    places.map(({ tile }) => tile.influence),
    width,
    height,
  );
  places.forEach(({ tile }, i) => (tile.box = boxes[i]));
  return tiles;
}
