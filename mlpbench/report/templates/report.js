"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const key = (row, index) => {
    const cell = row.cells[index], text = cell.dataset.sort ?? cell.textContent.trim();
    const value = Number(text);
    return text === "" || text === "–" ? null : Number.isNaN(value) ? text : value;
  };
  heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [key(row, index), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  }));
}
for (const field of document.querySelectorAll(".search input")) {
  const box = field.closest(".table"), rows = [...box.querySelectorAll("tbody tr")], count = box.querySelector(".count");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  });
}
for (const box of document.querySelectorAll(".slider")) {
  const rows = JSON.parse(box.dataset.rows), input = box.querySelector("input");
  const duration = (s) => {
    const [unit, by] = s < 120 ? ["s", 1] : s < 7200 ? ["min", 60] : s < 172800 ? ["h", 3600] : ["days", 86400];
    return `${Number((s / by).toPrecision(3)).toLocaleString("en")} ${unit}`;
  };
  const update = () => {
    const steps = Math.round(10 ** Number(input.value));
    box.querySelector("output").textContent = Number(steps.toPrecision(2)).toLocaleString("en").replaceAll(",", "\u202f");
    input.setAttribute("aria-valuetext", `${steps} steps`);
    const ranked = rows.map((row) => ({ ...row, total: row.fixed + row.step * steps })).sort((a, b) => a.total - b.total);
    box.querySelector("ol").replaceChildren(...ranked.map((row) => {
      const item = document.createElement("li");
      item.textContent = `${row.label}: ${duration(row.total)} (${duration(row.fixed)} before the first step; ${row.error})`;
      return item;
    }));
  };
  input.addEventListener("input", update);
  update();
}
addEventListener("beforeprint", () => document.querySelectorAll("details.paper").forEach((d) => { d.open = true; }));
