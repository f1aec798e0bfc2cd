
"use strict";
(() => {
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const FRACTURE = data.verdicts[0];
const NO_FRACTURE_PARTS = { verdict_grade: "", verdict_vertebra: "" };
const NO_RECORD = Object.fromEntries(data.columns.map((name) => [name, ""]));
const READER = "vfscreen:reader";  // whose name is the same in every report
const ROWS_AT_ONCE = 200;  // of the table of studies without a result

const list = byId("cards"), view = byId("case"), help = byId("help");
const cases = data.cases.map((item) => ({ ...item, card: document.createElement("li"), finds: finds(item) }));
const byCard = new Map(cases.map((item) => [item.card, item]));
const byStudy = new Map(cases.map((item) => [item.study, item]));

const verdicts = new Map();  // study -> record, with the columns of the CSV
const history = [];  // of each change the records before it
const storage = usableStorage();
let isUnsaved = false;  // while nothing but this page holds the verdicts
let shown = [];  // what fits the filters, in the order of the page
let order = [], place = 0;  // of the large view: it keeps its order while verdicts are given
const current = () => order[place];

// --- words ---------------------------------------------------------------------------------------

function finds(item) {
  return `${item.patient ?? ""} ${item.study}`.toLowerCase();
}

const nameOf = (item) => item.patient ?? item.study;
const titleOf = (item) => `${nameOf(item)}: G ${item.ratio.toFixed(3)}, ${item.grade}`;
const worstOf = (item) => item.found.reduce((a, b) => (b.ratio < a.ratio ? b : a));
const intervalOf = (vertebra) => vertebra.interval?.map((g) => g.toFixed(2)).join(" to ") ?? "";
const words = (name) => name.replaceAll("_", " ");
const vertebraOf = (vertebra) => `${vertebra.number}${vertebra.level ? ` (${vertebra.level})` : ""}`;
const number = (n) => n.toLocaleString("en");
const counted = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;
const rowsOf = (n) => counted(n, "row", "rows");
const studiesOf = (n) => counted(n, "study", "studies");
const vertebrae = (n) => counted(n, "vertebra", "vertebrae");

function say(text) {
  byId("said").textContent = text;
  byId("case-said").textContent = text;  // what lies behind an open dialog is not read out
}

function sayProgress() {
  const read = cases.filter(isRead).length;
  const progress = `${number(read)} of ${number(cases.length)} read`;
  const some = shown.length < cases.length ? `; ${number(shown.length)} shown` : "";
  byId("progress").textContent = progress + some;
  return progress;
}

// --- verdicts, and where they are kept -----------------------------------------------------------

function usableStorage() {
  try {
    localStorage.setItem(data.key, "");
    localStorage.removeItem(data.key);
    return localStorage;
  } catch {
    return null;
  }
}

function warnNotKept(why) {
  byId("not-kept").textContent = `Verdicts are not kept: ${why}. Save them as CSV before you close the page.`;
  byId("not-kept").hidden = false;
}

const keyOf = (study) => `${data.key}:${study}`;
const recordOf = (item) => verdicts.get(item.study) ?? NO_RECORD;
const isRead = (item) => recordOf(item).verdict !== "";

function recall(study) {
  const text = storage?.getItem(keyOf(study));
  if (text) verdicts.set(study, JSON.parse(text));
  else verdicts.delete(study);
}

function keep(study, record) {
  if (record) verdicts.set(study, record);
  else verdicts.delete(study);
  isUnsaved = true;
  if (!storage) return;
  try {
    if (record) storage.setItem(keyOf(study), JSON.stringify(record));
    else storage.removeItem(keyOf(study));
    isUnsaved = false;
  } catch {
    warnNotKept("the browser's storage is full");
  }
}

/** Change the records of some studies, as one step that can be undone. */
function change(records) {
  history.push([...records.keys()].map((study) => [study, verdicts.get(study)]));
  records.forEach((record, study) => keep(study, record));
  [...records.keys()].forEach((study) => paint(byStudy.get(study)));
  return sayProgress();
}

function undo() {
  const before = history.pop();
  if (!before) return say("Nothing to undo");
  before.forEach(([study, record]) => keep(study, record));
  before.forEach(([study]) => paint(byStudy.get(study)));
  const progress = sayProgress();
  const item = byStudy.get(before[0][0]);
  const one = `${nameOf(item)}: ${recordOf(item).verdict || "no verdict"}`;
  const what = before.length > 1 ? studiesOf(before.length) : one;
  say(`Undone, ${what}; ${progress}`);
}

function note(item, parts, what) {
  const signed = { reader: byId("reader").value.trim(), read_at: now() };
  const record = { ...recordOf(item), ...parts, ...signed };
  const isEmpty = !record.verdict && !record.verdict_comment;
  const progress = change(new Map([[item.study, isEmpty ? null : record]]));
  say(`${nameOf(item)}: ${what}; ${progress}`);
}

function giveVerdict(item, verdict) {
  note(item, { verdict, ...(verdict === FRACTURE ? {} : NO_FRACTURE_PARTS) }, `${verdict}, kept`);
}

function giveGrade(item, grade) {
  note(item, { verdict: FRACTURE, verdict_grade: grade }, `${FRACTURE}, ${grade}, kept`);
}

function giveVertebra(item, number) {
  const what = number ? `${FRACTURE} of ${number}` : FRACTURE;
  note(item, { verdict: FRACTURE, verdict_vertebra: number }, `${what}, kept`);
}

function removeVerdict(item) {
  note(item, { verdict: "", ...NO_FRACTURE_PARTS }, "verdict removed");
}

function commitComment() {
  const comment = byId("case-comment").value.replace(/\s+/g, " ").trim();
  if (order.length && comment !== recordOf(current()).verdict_comment) {
    note(current(), { verdict_comment: comment }, "comment kept");
  }
}

/** Local time with its offset from UTC, as ISO 8601. */
function now() {
  const date = new Date(), minutes = -date.getTimezoneOffset();
  const two = (n) => String(Math.floor(Math.abs(n))).padStart(2, "0");
  const local = new Date(date.getTime() + minutes * 60000).toISOString().slice(0, 19);
  return `${local}${minutes < 0 ? "-" : "+"}${two(minutes / 60)}:${two(minutes % 60)}`;
}

// --- CSV -----------------------------------------------------------------------------------------

/** A spreadsheet takes a text that begins so for a formula. */
const isFormula = (text) => /^[=+\-@\t\r]/.test(text);

function cell(text) {
  return `"${(isFormula(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
}

function csv() {
  const rows = [["study_id", ...data.columns]];
  for (const { study } of cases.filter((item) => verdicts.has(item.study))) {
    const record = verdicts.get(study);
    const signed = { ...record, reader: record.reader || byId("reader").value.trim() };
    rows.push([study, ...data.columns.map((name) => signed[name])]);
  }
  return `\ufeff${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

function save() {
  commitComment();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "verdicts.csv";
  link.click();
  isUnsaved = false;
  const isSigned = byId("reader").value.trim() !== "";
  const unsigned = isSigned ? "" : "; the reader's name is missing, give it and save again";
  say(`${rowsOf(verdicts.size)} saved as verdicts.csv in the folder of downloads${unsigned}`);
}

/** Rows of cells; spreadsheets part them by comma, semicolon or tabulator. */
function parse(text) {
  const header = text.slice(0, text.search(/\r|\n|$/));
  const [mark] = [",", ";", "\t"].sort((a, b) => header.split(b).length - header.split(a).length);
  const rows = [[]];
  const cells = new RegExp(`("(?:[^"]|"")*"|[^"\r\n${mark}]*)(${mark}|\r\n|\r|\n|$)`, "y");
  while (cells.lastIndex < text.length) {
    const found = cells.exec(text);
    if (!found) throw new Error(`the quotation marks of row ${rows.length} do not match`);
    const [, value, end] = found;
    rows.at(-1).push(value.startsWith('"') ? value.slice(1, -1).replaceAll('""', '"') : value);
    if (end !== mark) rows.push([]);
  }
  return rows.filter((row) => row.length);
}

const withoutQuote = (text) => (text.startsWith("'") && isFormula(text.slice(1)) ? text.slice(1) : text);

const plain = (text) => text.replace(/[\s_-]/g, "").toLowerCase();

/** The choice that somebody meant, whatever its case and spacing; undefined where it is none. */
const choice = (choices, text) => ["", ...choices].find((each) => plain(each) === plain(text));

/** The records of a CSV file, and how many of its rows are of no use here. */
function recordsOf(text) {
  const [header = [], ...rows] = parse(text.replace(/^\ufeff/, ""));
  const missing = ["study_id", "verdict"].filter((name) => !header.includes(name));
  if (missing.length) throw new Error(`it has no column ${missing.join(", ")}`);
  const records = new Map();
  let strange = 0, wrong = 0;
  for (const row of rows) {
    const value = (name) => withoutQuote(row[header.indexOf(name)] ?? "").trim();
    const record = Object.fromEntries(data.columns.map((name) => [name, value(name)]));
    if (!record.verdict && !record.verdict_comment) continue;
    record.verdict = choice(data.verdicts, record.verdict);
    record.verdict_grade = choice(data.grades, record.verdict_grade);
    if (!byStudy.has(value("study_id"))) strange += 1;
    else if (record.verdict === undefined || record.verdict_grade === undefined) wrong += 1;
    else records.set(value("study_id"), record);
  }
  return { records, strange, wrong };
}

async function load(file) {
  let found;
  try {
    found = recordsOf(await file.text());
  } catch (error) {
    return say(`${file.name} cannot be loaded: ${error.message}`);
  }
  const progress = found.records.size ? change(found.records) : sayProgress();
  const left = [
    found.strange && `${rowsOf(found.strange)} of studies that are not in this report left out`,
    found.wrong && `${rowsOf(found.wrong)} with an unknown verdict or grade left out`,
  ].filter(Boolean);
  apply();
  say([`${rowsOf(found.records.size)} loaded`, ...left, progress].join("; "));
}

// --- cards ---------------------------------------------------------------------------------------

// A card is a line of text until it comes near the window, and again when it is far away.
const nearby = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) (isIntersecting ? fill : empty)(byCard.get(target));
  },
  { rootMargin: "800px 0px" },
);

function empty(item) {
  if (item.card.contains(document.activeElement)) return;
  item.card.textContent = titleOf(item);
}

function fill(item) {
  if (item.card.firstElementChild) return;
  const card = byId("card").content.cloneNode(true);
  const set = (selector, text) => (card.querySelector(selector).textContent = text);
  const worst = worstOf(item), interval = intervalOf(worst);
  set("h3", nameOf(item));
  set(".when", item.date ?? "date unknown");
  set(".ratio strong", `G ${item.ratio.toFixed(3)}`);
  set(".more", [
    interval && `90 %: ${interval}`,
    `vertebra ${vertebraOf(worst)} of ${item.vertebrae}, ${worst.shape}`,
    `${vertebrae(item.deformed)} ≤ 0.74`,
  ].filter(Boolean).join("\n"));
  set(".doubt", doubtsOf(item));
  setBadge(card.querySelector(".badge"), item.grade);
  const open = card.querySelector(".open");
  open.setAttribute("aria-label", `Large view of ${titleOf(item)}`);
  const image = open.querySelector("img");
  image.addEventListener("load", () => image.style.setProperty("--spine", data.spine / image.naturalHeight));
  setPicture(image, item, () => open.classList.add("empty"));
  card.querySelector(".choices").setAttribute("aria-label", `Verdict on ${nameOf(item)}`);
  item.card.replaceChildren(card);
  paint(item);
}

function doubtsOf(item) {
  const names = item.doubts.map(words).join(", ");
  return item.status === "partial" ? `Partial: ${names}` : names && `Doubts: ${names}`;
}

function setBadge(badge, grade) {
  badge.className = `badge ${grade}`;
  badge.textContent = grade;
}

function setPicture(image, item, onMissing) {
  image.addEventListener("error", onMissing, { once: true });
  if (item.picture) image.src = item.picture;
  else onMissing();
}

/** Show the verdict of a study wherever it is seen. */
function paint(item) {
  const record = recordOf(item);
  item.card.classList.toggle("read", isRead(item));
  press(item.card, "verdict", record.verdict);
  if (view.open && item === current()) {
    press(view, "verdict", record.verdict);
    press(view, "grade", record.verdict_grade);
    byId("case-vertebra").value = record.verdict_vertebra;
    byId("case-comment").value = record.verdict_comment;
  }
}

function press(within, kind, value) {
  for (const button of within.querySelectorAll(`[data-${kind}]`)) {
    button.setAttribute("aria-pressed", String(button.dataset[kind] === value));
  }
}

const itemAt = (element) => byCard.get(element.closest?.(".card"));

function goTo(item) {
  fill(item);
  item.card.querySelector(".open").focus();
}

function step(by) {
  const at = shown.indexOf(itemAt(document.activeElement));
  const next = shown[at < 0 ? 0 : at + by];
  if (next) goTo(next);
}

// --- filters -------------------------------------------------------------------------------------

const compare = new Intl.Collator("en", { numeric: true }).compare;
const SORTED = {
  ratio: (a, b) => a.ratio - b.ratio,
  date: (a, b) => (b.date ?? "").localeCompare(a.date ?? "") || a.ratio - b.ratio,
  patient: (a, b) => compare(nameOf(a), nameOf(b)) || a.ratio - b.ratio,
};

function filter() {
  const text = byId("find").value.trim().toLowerCase();
  const [grade, status, verdict] = ["grade", "status", "verdict"].map((id) => byId(id).value);
  const deformed = Number(byId("deformed").value);
  return (item) =>
    item.finds.includes(text) &&
    (!grade || item.grade === grade) &&
    (!status || item.status === status) &&
    item.deformed >= deformed &&
    fitsVerdict(item, verdict);
}

function fitsVerdict(item, wanted) {
  if (wanted === "unread") return !isRead(item);
  if (wanted === "read") return isRead(item);
  return !wanted || recordOf(item).verdict === wanted;
}

function apply() {
  const before = shown;
  shown = cases.filter(filter()).sort(SORTED[byId("sort").value]);
  if (shown.length !== before.length || shown.some((item, i) => item !== before[i])) {
    const cards = new DocumentFragment();
    for (const { card } of shown) cards.append(card);
    list.replaceChildren(cards);
  }
  byId("none").hidden = shown.length > 0;
  byId("start").disabled = !shown.length;
  sayProgress();
}

// --- the large view ------------------------------------------------------------------------------

function open(item) {
  order = shown;
  view.showModal();
  show(order.indexOf(item));
}

function start() {
  open(shown.find((item) => !isRead(item)) ?? shown[0]);
}

function show(at) {
  place = at;
  const item = current();
  byId("case-title").textContent = nameOf(item);
  byId("case-place").textContent = `${place + 1} of ${order.length}`;
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === order.length - 1;
  showPicture(item);
  byId("case-found").replaceChildren(...item.found.map(vertebraRow));
  byId("case-summary").textContent =
    `${item.deformed} of ${vertebrae(item.vertebrae)} with G ≤ 0.74; listed is what is not normal.`;
  const doubts = item.doubts.map((name) => element("li", `${words(name)}: ${data.doubts[name] ?? ""}`));
  byId("case-doubts").replaceChildren(...doubts);
  showFacts(item);
  offerVertebrae(item);
  paint(item);
  say(`${titleOf(item)}; ${recordOf(item).verdict || "no verdict"}; ${place + 1} of ${order.length}`);
}

function showPicture(item) {
  const image = byId("picture").cloneNode();  // a new one: the one before must not stay while it loads
  image.removeAttribute("src");
  image.hidden = false;
  byId("no-picture").hidden = true;
  const where = `vertebra ${worstOf(item).number} of ${item.vertebrae}`;
  image.alt = `Straightened and sagittal picture of ${titleOf(item)}, ${where}`;
  image.addEventListener("load", () => scrollToWorst(item));
  setPicture(image, item, () => { image.hidden = true; byId("no-picture").hidden = false; });
  byId("picture").replaceWith(image);
  const next = order[place + 1];
  if (next?.picture) new Image().src = next.picture;
}

/** About to where the worst vertebra is in a picture that is larger than its frame. */
function scrollToWorst(item) {
  const frame = byId("frame");
  const middle = (frame.scrollHeight * (worstOf(item).number - 0.5)) / item.vertebrae;
  frame.scrollTo(0, middle - frame.clientHeight / 2);
}

function toggleSize() {
  const isFull = byId("frame").classList.toggle("full");
  byId("case-size").setAttribute("aria-pressed", String(isFull));
  scrollToWorst(current());
}

function vertebraRow(vertebra) {
  const row = document.createElement("tr");
  const head = element("th", vertebraOf(vertebra));
  head.scope = "row";
  const badge = document.createElement("span");
  setBadge(badge, vertebra.grade);
  const grade = document.createElement("td");
  grade.append(badge);
  const doubts = vertebra.doubts.length ? ` (${vertebra.doubts.map(words).join(", ")})` : "";
  row.append(
    head,
    element("td", vertebra.ratio.toFixed(3)),
    element("td", intervalOf(vertebra)),
    grade,
    element("td", vertebra.heights?.map((mm) => mm.toFixed(1)).join(", ") ?? ""),
    element("td", vertebra.shape + doubts),
  );
  return row;
}

function showFacts(item) {
  const facts = { Date: item.date ?? "unknown", Status: item.status, Study: item.study, Where: item.source };
  const shownFacts = Object.entries(facts).map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  });
  byId("case-facts").replaceChildren(...shownFacts);
}

function offerVertebrae(item) {
  const numbers = Array.from({ length: item.vertebrae }, (_, i) => new Option(String(i + 1)));
  byId("case-vertebra").replaceChildren(new Option("not told", ""), ...numbers);
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function move(by) {
  if (!view.open) return step(by);
  commitComment();
  if (order[place + by]) show(place + by);
  else say(by > 0 ? "This was the last one" : "This is the first one");
}

function moveToUnread() {
  if (view.open) commitComment();
  const from = view.open ? place : shown.indexOf(itemAt(document.activeElement));
  const among = view.open ? order : shown;
  const at = among.findIndex((item, i) => i > from && !isRead(item));
  if (at < 0) return say("No study without a verdict comes after this one");
  if (view.open) show(at);
  else goTo(among[at]);
}

function onClosed() {
  commitComment();
  const item = current();
  order = [];
  apply();
  if (shown.includes(item)) goTo(item);
  else byId("start").focus();
}

// --- studies without a result --------------------------------------------------------------------

const unmeasured = data.unmeasured.map((item) => ({
  ...item,
  finds: [item.patient, item.study, item.source, item.cause, item.reason].join(" ").toLowerCase(),
}));
let rowsWanted = ROWS_AT_ONCE;

function listUnmeasured() {
  const text = byId("unmeasured-find").value.trim().toLowerCase(), status = byId("unmeasured-status").value;
  const found = unmeasured.filter((item) => item.finds.includes(text) && (!status || item.status === status));
  const rows = found.slice(0, rowsWanted);
  byId("unmeasured-rows").replaceChildren(...rows.map(unmeasuredRow));
  byId("unmeasured-count").textContent = `${number(rows.length)} of ${studiesOf(found.length)}`;
  byId("unmeasured-more").hidden = rows.length === found.length;
}

function unmeasuredRow(item) {
  const row = document.createElement("tr");
  const names = ["patient", "study", "status", "cause", "reason", "source"];
  row.append(...names.map((name) => element("td", item[name] ?? "")));
  return row;
}

// --- keys and events -----------------------------------------------------------------------------

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  n: moveToUnread,
  z: undo,
  "?": () => help.showModal(),
};
const KEYS_OF_VIEW = {
  ArrowRight: () => move(1),
  ArrowLeft: () => move(-1),
  f: toggleSize,
  v: () => byId("case-vertebra").focus(),
  c: () => byId("case-comment").focus(),
};
const KEYS_OF_STUDY = {
  0: removeVerdict,
  ...Object.fromEntries(data.verdicts.map((verdict, i) => [i + 1, (item) => giveVerdict(item, verdict)])),
  ...Object.fromEntries(data.grades.map((grade, i) => ["mos"[i], (item) => giveGrade(item, grade)])),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || !byId("keys-on").checked) return;
  if (event.target.matches("input, select, textarea")) return;
  const item = view.open ? current() : itemAt(event.target);
  const action = KEYS[event.key] ?? (view.open && KEYS_OF_VIEW[event.key]);
  const onStudy = item && KEYS_OF_STUDY[event.key];
  if (!action && !onStudy) return;
  event.preventDefault();
  if (action) action();
  else onStudy(item);
}

function onCardClick({ target }) {
  const item = itemAt(target), button = target.closest("button");
  if (!item || !button) return;
  if (button.dataset.verdict) giveVerdict(item, button.dataset.verdict);
  else open(item);
}

function onViewClick({ target }) {
  const { verdict, grade } = target.closest("button")?.dataset ?? {};
  if (verdict) giveVerdict(current(), verdict);
  if (grade) giveGrade(current(), grade);
}

/** Verdicts given in another window of the same report. */
function onStored({ key }) {
  const item = key?.startsWith(`${data.key}:`) && byStudy.get(key.slice(data.key.length + 1));
  if (!item) return;
  recall(item.study);
  paint(item);
  sayProgress();
}

function onClick(id, action) {
  byId(id).addEventListener("click", () => action());
}

function listen() {
  document.addEventListener("keydown", onKey);
  list.addEventListener("click", onCardClick);
  view.addEventListener("click", onViewClick);
  view.addEventListener("close", onClosed);
  window.addEventListener("storage", onStored);
  window.addEventListener("pagehide", commitComment);
  window.addEventListener("beforeunload", (event) => { if (isUnsaved) event.preventDefault(); });
  byId("filters").addEventListener("input", apply);
  byId("filters").addEventListener("reset", () => setTimeout(apply));  // once the fields are empty
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("reader").addEventListener("change", () => storage?.setItem(READER, byId("reader").value.trim()));
  byId("file").addEventListener("change", ({ target }) => { load(target.files[0]); target.value = ""; });
  byId("case-vertebra").addEventListener("change", ({ target }) => giveVertebra(current(), target.value));
  byId("case-comment").addEventListener("change", commitComment);
  onClick("start", start);
  onClick("save", save);
  onClick("load", () => byId("file").click());
  for (const id of ["undo", "case-undo"]) onClick(id, undo);
  for (const id of ["keys", "case-keys"]) onClick(id, KEYS["?"]);
  onClick("previous", () => move(-1));
  onClick("next", () => move(1));
  onClick("close", () => view.close());
  onClick("case-remove", () => removeVerdict(current()));
  onClick("case-size", toggleSize);
  listenToUnmeasured();
}

function listenToUnmeasured() {
  const anew = () => { rowsWanted = ROWS_AT_ONCE; listUnmeasured(); };
  byId("unmeasured").addEventListener("toggle", listUnmeasured);
  byId("unmeasured-find").addEventListener("input", anew);
  byId("unmeasured-status").addEventListener("input", anew);
  byId("unmeasured-find").form.addEventListener("submit", (event) => event.preventDefault());
  onClick("unmeasured-more", () => { rowsWanted += ROWS_AT_ONCE; listUnmeasured(); });
}

function begin() {
  if (storage) byId("reader").value = storage.getItem(READER) ?? "";
  else warnNotKept("this browser allows a page no storage here");
  for (const item of cases) {
    recall(item.study);
    item.card.className = "card";
    item.card.textContent = titleOf(item);
    item.card.classList.toggle("read", isRead(item));
    nearby.observe(item.card);
  }
  apply();
  listen();
}

begin();
})();
