// Which units and concepts are on show, in which order, and where labels stand.

/** What the kernel tells of a layer, with its numbers as such. */
function readTable({ iou, certain, ...table }) {
  const codes = typed(iou, Uint16Array), sure = typed(certain, Uint8Array);
  const peaks = table.names.map(() => 0);
  codes.forEach((code, i) => (peaks[i % peaks.length] = Math.max(peaks[i % peaks.length], code)));
  const isCertain = (unit, concept) => !sure.length || sure[unit * peaks.length + concept] > 0;
  return { ...table, certain: isCertain, tested: sure.length > 0, peaks, peak: Math.max(...peaks, 1), code: (unit, concept) => codes[unit * peaks.length + concept] };
}

/** Choose and sort units and concepts; `arrange` of heatmap.py does the same where there is no page. */
function arrange(table, { order, search, minimum, interpretable_only }) {
  const { code, peaks } = table;
  const shown = [...table.names.keys()].filter((concept) => found(table, concept, search));
  if (!shown.length) return { units: [], concepts: [], best: [] };
  const visible = new Set(shown);
  const highest = (unit) => shown.reduce((a, b) => (code(unit, b) > code(unit, a) ? b : a));
  const best = table.best.map((label, unit) => (visible.has(label) ? label : highest(unit)));
  const value = best.map((concept, unit) => code(unit, concept));

  const byPeak = () => shown.sort((a, b) => peaks[b] - peaks[a]);
  const concepts = {
    concept: byPeak,
    IoU: byPeak,
    unit: () => shown,
    clustered: () => table.concepts_clustered.filter((concept) => visible.has(concept)),
  }[order]();
  const place = new Map(concepts.map((concept, i) => [concept, i]));

  const least = Math.floor(minimum * ONE + 0.5);
  const all = order === "clustered" ? table.units_clustered : [...best.keys()];
  const units = all.filter((unit) => value[unit] >= least && (table.interpretable[unit] || !interpretable_only));
  if (order === "concept") units.sort((a, b) => place.get(best[a]) - place.get(best[b]) || value[b] - value[a]);
  if (order === "IoU") units.sort((a, b) => value[b] - value[a]);
  return { units, concepts, best: units.map((unit) => best[unit]) };
}

/** Whether one of the words searched for is in the concept's name or category. */
function found({ names, categories }, concept, search) {
  const words = search.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
  const text = `${names[concept]}:${categories[concept]}`.toLowerCase();
  return !words.length || words.some((word) => text.includes(word));
}

/** Runs of equal values: { value, start, end }. */
function runs(values) {
  const result = [];
  values.forEach((value, i) => {
    if (i && value === values[i - 1]) result.at(-1).end = i + 1;
    else result.push({ value, start: i, end: i + 1 });
  });
  return result;
}

/** Labels { at } whose middle is in view, moved a little so that all of them is. */
function within(labels, extent) {
  const seen = labels.filter(({ at }) => at >= 0 && at <= extent);
  return seen.map((label) => ({ ...label, at: clamp(label.at, LINE / 2, Math.max(extent, LINE) - LINE / 2) }));
}

/** Of labels { at, rank } those of the highest rank, so many pixels apart. */
function spread(labels, apart) {
  const kept = [];
  for (const label of labels.sort((a, b) => b.rank - a.rank))
    if (kept.every(({ at }) => Math.abs(at - label.at) >= apart)) kept.push(label);
  return kept;
}
