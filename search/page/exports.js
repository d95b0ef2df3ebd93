// The answer taken along: JSON, CSV, picture, link.

import { showImage } from "./api.js";
import { h } from "./dom.js";
import { tilesOf } from "./treemap.js";
import { FIELDS, clean, count, creators, images, lastPart, percent } from "./words.js";

const COLUMNS = ["rank", "influence", "influence_low", "influence_high", "similarity", "key"];
COLUMNS.push("dataset", "creator", "licence", "caption", "url", "sha256", "copies");

/** One line an owner-folded row; the last line is the remaining influence. */
export function csv(answer) {
  const lines = answer.rows.map((row) => {
    const first = row.owners[0];
    return [
      row.rank,
      row.influence,
      ...row.interval,
      row.similarity,
      first.key,
      first.dataset,
      creators(row),
      first.licence,
      first.caption,
      first.url,
      row.sha256,
      row.owners.length,
    ];
  });
  lines.push(["", answer.remaining, ...answer.remaining_interval, "", "remaining influence"]);
  for (const line of lines) while (line.length < COLUMNS.length) line.push("");
  return [COLUMNS, ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** A spreadsheet takes text that begins like a formula for one; an apostrophe keeps it text. */
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Plain http on another host than this one: browsers withhold the clipboard there.
  const area = h("textarea", { class: "unseen", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("The browser does not let this page use the clipboard.");
}

export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A name for a file of this answer. */
export function fileName(answer, ending) {
  const stem = lastPart(answer.query).replace(/\.[^.]*$/, "").replace(/[^\w-]+/g, "-") || "image";
  return `attribution-of-${stem}.${ending}`;
}

const loaded = (path) =>
  new Promise((done) => {
    if (!path) {
      done(null);
      return;
    }
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => done(null);
    showImage(image, path);
  });

/** The wall as a PNG, with the generated image and the words that belong to it. */
export async function drawPicture(answer, query) {
  const [width, wall, margin, head] = [1600, 900, 48, 190];
  const canvas = h("canvas");
  canvas.width = width;
  canvas.height = head + wall + margin + 44;
  const pen = canvas.getContext("2d");
  const font = (size, weight = 400) => `${weight} ${size}px system-ui, "DejaVu Sans", sans-serif`;
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (query.naturalWidth > 0) contain(pen, query, { x: margin, y: 32, width: 128, height: 128 });
  const left = margin + 128 + 28;
  const shown = answer.rows.reduce((sum, row) => sum + row.influence, 0);
  write(pen, clean(lastPart(answer.query)), left, 68, width - left - margin, font(28, 650), "#1c1f23");
  write(pen, `${images(answer.given ?? answer.rows.length)} shown carry ${percent(shown)} of the influence, remaining ${percent(answer.remaining)}`,
    left, 106, width - left - margin, font(20), "#3c4248");
  write(pen, `${answer.method}, ${images(answer.population)}, model ${clean(answer.model)}`,
    left, 138, width - left - margin, font(17), "#5a6169");
  const only = Object.entries(answer.where).map(([field, names]) =>
    `${FIELDS[field] ?? field} ${names.map((name) => clean(name, 200)).join(" or ")}`);
  if (only.length > 0) {
    write(pen, `Shown only: ${only.join("; ")}`, left, 168, width - left - margin, font(17), "#1c1f23");
  }

  const inner = width - 2 * margin;
  const tiles = tilesOf(answer.rows, answer.remaining, inner, wall, 36);
  const thumbnails = await Promise.all(
    tiles.map((tile) => (tile.kind === "row" ? loaded(tile.row.thumbnail) : null)),
  );
  tiles.forEach((tile, i) => {
    const box = {
      x: margin + tile.box.x + 1,
      y: head + tile.box.y + 1,
      width: Math.max(tile.box.width - 2, 1),
      height: Math.max(tile.box.height - 2, 1),
    };
    pen.save();
    pen.beginPath();
    pen.rect(box.x, box.y, box.width, box.height);
    pen.clip();
    pen.fillStyle = tile.kind === "row" ? "#e7eaec" : "#d5dadd";
    pen.fillRect(box.x, box.y, box.width, box.height);
    if (tile.kind === "remaining") hatch(pen, box);
    if (thumbnails[i]) cover(pen, thumbnails[i], box);
    if (box.height >= 44) label(pen, tile, box, font);
    pen.restore();
    pen.strokeStyle = "#c3cacf";
    pen.strokeRect(box.x - 0.5, box.y - 0.5, box.width + 1, box.height + 1);
  });
  write(pen, "Area is proportional to influence: an estimate from similarity, not a proof of cause.",
    margin, canvas.height - 30, inner, font(16), "#5a6169");
  return new Promise((done, failed) =>
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("The picture could not be drawn."))), "image/png"),
  );
}

function hatch(pen, box) {
  pen.strokeStyle = "#b9c1c6";
  pen.beginPath();
  for (let x = box.x - box.height; x < box.x + box.width; x += 14) {
    pen.moveTo(x, box.y + box.height);
    pen.lineTo(x + box.height, box.y);
  }
  pen.stroke();
}

function label(pen, tile, box, font) {
  const kinds = { folded: `${count(tile.rows?.length ?? 0)} smaller`, remaining: "remaining" };
  const lines = [percent(tile.influence)];
  if (box.width >= 150 && box.height >= 90) {
    lines.push(tile.kind === "row" ? creators(tile.row) : kinds[tile.kind]);
  }
  pen.font = font(16, 600);
  const room = box.width - 28;
  if (pen.measureText(lines[0]).width > room) return; // half a number says something else
  const texts = lines.map((line) => fitted(pen, line, room));
  const wide = Math.max(...texts.map((text) => pen.measureText(text).width)) + 16;
  const high = 24 * texts.length + 6;
  pen.fillStyle = "rgba(16, 19, 22, 0.82)";
  pen.fillRect(box.x + 6, box.y + box.height - high - 6, wide, high);
  texts.forEach((text, i) => {
    pen.font = font(16, i === 0 ? 600 : 400);
    pen.fillStyle = "#ffffff";
    pen.fillText(text, box.x + 14, box.y + box.height - high + 15 + 24 * i);
  });
}

function fitted(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let cut = text;
  while (cut && pen.measureText(`${cut}…`).width > room) cut = cut.slice(0, -1);
  return `${cut}…`;
}

function write(pen, text, x, y, room, font, ink) {
  pen.font = font;
  pen.fillStyle = ink;
  pen.fillText(fitted(pen, text, room), x, y);
}

function contain(pen, image, box) {
  const ratio = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const [width, height] = [image.naturalWidth * ratio, image.naturalHeight * ratio];
  pen.drawImage(image, box.x + (box.width - width) / 2, box.y + (box.height - height) / 2, width, height);
}

function cover(pen, image, box) {
  const ratio = Math.max(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const [width, height] = [image.naturalWidth * ratio, image.naturalHeight * ratio];
  pen.drawImage(image, box.x + (box.width - width) / 2, box.y + (box.height - height) / 2, width, height);
}
