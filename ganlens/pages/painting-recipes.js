// Recipes of others are data: each part is checked before it is used.

/** Seed and edits of a recipe's text; an Error says what was found, and what is expected. */
function checkedRecipe(text, page) {
  let recipe;
  try {
    recipe = JSON.parse(text);
  } catch {
    throw new Error("This is no JSON; expected what “copy recipe” or Recipe.save writes.");
  }
  if (recipe?.format !== 1 || !Array.isArray(recipe.edits)) throw new Error("This is no recipe of format 1.");
  if (recipe.fingerprint !== page.fingerprint) {
    throw new Error(`The recipe is of another generator (${String(recipe.generator)}, ${String(recipe.fingerprint)}).`);
  }
  const settings = recipe.settings ?? {};
  const names = Object.keys({ ...settings, ...page.settings });
  if (names.some((name) => settings[name] !== page.settings[name])) throw new Error("It is of other settings.");
  if (!Number.isInteger(recipe.seed) || recipe.seed < 0 || recipe.seed >= 2 ** 32) throw new Error("Its seed is none.");
  return { seed: recipe.seed, edits: recipe.edits.map((edit, i) => checkedEdit(edit, i, page)) };
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(Math.fround(value));

function checkedEdit(edit, i, page) {
  const wrong = (why) => new Error(`Edit ${i} of the recipe: ${why}.`);
  if (typeof edit !== "object" || edit === null) throw wrong("it is none");
  const { layer, units, level = 0, region = null, strength = 1 } = edit;
  const shape = typeof layer === "string" && Object.hasOwn(page.shapes, layer) ? page.shapes[layer] : null;
  if (!shape) throw wrong(`there is no layer ${String(layer)}`);
  const [count, height, width] = shape;
  const isUnit = (unit) => Number.isInteger(unit) && unit >= 0 && unit < count;
  if (!Array.isArray(units) || !units.length || !units.every(isUnit) || new Set(units).size < units.length) {
    throw wrong(`its units are not among 0 … ${count - 1}`);
  }
  const isMap = (map, test) =>
    Array.isArray(map) &&
    map.length === height &&
    map.every((row) => Array.isArray(row) && row.length === width && row.every(test));
  const named = typeof level === "string";
  if (named && !Object.hasOwn(page.levels[layer] ?? {}, level)) {
    throw wrong(`this page does not know the level ${level} of ${layer}`);
  }
  const isLevel = (value) => isNumber(value) || isMap(value, isNumber);
  const each = Array.isArray(level) && level.length === units.length && level.every(isLevel);
  if (!named && !isNumber(level) && !each) {
    throw wrong("its level is no number, and not one for each unit");
  }
  if (region !== null && !isMap(region, (a) => isNumber(a) && a >= 0 && a <= 1)) {
    throw wrong(`its region is not ${height} x ${width} weights from 0 to 1`);
  }
  if (!isNumber(strength) || strength < 0 || strength > 1) throw wrong("its strength is not from 0 to 1");
  return { layer, units, level, region, strength };
}
