// The dials of the book: two prompts of notebook 00 by their formula, and lab's published correlations by n, d and C.
const at = (id) => document.getElementById(id);
const text = (id, said) => { at(id).textContent = said; };
const known = JSON.parse(at("dial-data").textContent);

function pair() {
  const theta = at("theta").value * Math.PI / 180, nu = 10 ** at("nu").value;
  const [c, s] = [Math.cos(theta), Math.sin(theta)];
  const entropy = [(1 + c) / 2, (1 - c) / 2].map((p) => p > 0 ? -p * Math.log(p) : 0).reduce((a, b) => a + b);
  text("theta-now", `${at("theta").value} degrees`);
  text("nu-now", nu.toPrecision(2));
  text("pair-said", `GRACE ${(c * c / (1 + nu / 2) + s * s / (nu / 2)).toFixed(2)}, G-Norm 1.00, G-Vendi ${entropy.toFixed(2)}`);
  at("ellipse").setAttribute("rx", 90 * Math.sqrt(1 + nu / 2));
  at("ellipse").setAttribute("ry", 90 * Math.sqrt(nu / 2));
  at("second").setAttribute("x2", 150 + 90 * c);
  at("second").setAttribute("y2", 110 - 90 * s);
}

function show(row, line) {
  const x = (rho) => 150 + 140 * rho;
  at(`${line}-line`).innerHTML = '<line x1="10" y1="15" x2="290" y2="15" stroke="#999"/><line x1="150" y1="5" x2="150" y2="25" stroke="#333"/>' +
    `<line x1="${x(row.low)}" x2="${x(row.high)}" y1="15" y2="15" stroke="#0173b2" stroke-width="4"/>` +
    `<circle cx="${x(row.spearman)}" cy="15" r="6" fill="#0173b2"/>`;
  const said = `correlation ${row.spearman.toFixed(2)} (${row.low.toFixed(2)} to ${row.high.toFixed(2)})`;
  const rows = (1 - 1 / row.n_folds) * row.n * row.m / row.d;
  text(`${line}-said`, `${said}, ${rows.toFixed(1)} gradients per dimension${row.nu_decides ? "; the smoothing decides the score" : ""}`);
}

function grid() {
  const n = known.n[at("n").value], d = known.d[at("d").value];
  text("n-now", `${n} prompts`);
  text("d-now", `${d} rows`);
  show(known.grid.find((row) => row.n === n && row.d === d), "grid");
}

function folds() {
  const row = known.folds[at("C").value];
  text("C-now", `${row.n_folds} folds`);
  show(row, "folds");
}

for (const [draw, ids] of [[pair, ["theta", "nu"]], [grid, ["n", "d"]], [folds, ["C"]]]) {
  ids.forEach((id) => at(id).addEventListener("input", draw));
  draw();
}
