"use strict";
// Values under the pointer, read off the curves: each plot has its scales in data attributes as
// "low,high,from,to,logarithmic". Everything else on the page works without this script.
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);

  const scale = (text) => {
    const [low, high, from, to, log] = text.split(",").map(Number);
    const put = log ? Math.log10 : (v) => v;
    const take = log ? (v) => 10 ** v : (v) => v;
    const [a, b] = [put(low), put(high)];
    return { from, to, step: Math.abs((high - low) / (to - from)), log,
      value: (at) => take(a + ((b - a) * (at - from)) / (to - from)) };
  };
  const show = (value, axis) => {
    if (axis.log) return String(Number(value.toPrecision(3)));
    const digits = Math.max(0, Math.min(8, -Math.floor(Math.log10(axis.step || 1))));
    return value.toFixed(digits);
  };

  for (const svg of document.querySelectorAll("svg.plot")) {
    const lines = [...svg.querySelectorAll("path.line[data-name]")];
    if (!lines.length) continue;
    const x = scale(svg.dataset.x);
    const y = { left: scale(svg.dataset.left) };
    if (svg.dataset.right) y.right = scale(svg.dataset.right);
    let curves = null;
    const cross = document.createElementNS(svg.namespaceURI, "path");
    cross.setAttribute("class", "cross");
    const hide = () => { tip.hidden = true; cross.remove(); };
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", (event) => {
      curves ??= lines.map((line) => ({
        name: line.dataset.name, axis: y[line.dataset.side] || y.left,
        points: (line.getAttribute("d").match(/[-\d.]+,[-\d.]+/g) || []).map((p) => p.split(",").map(Number)),
      })).filter((curve) => curve.points.length);
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      if (at < x.from - 8 || at > x.to + 8 || !curves.length) return hide();
      tip.replaceChildren();
      let nearest = null;
      for (const curve of curves) {
        const point = curve.points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
        if (Math.abs(point[0] - at) > 30) continue;
        if (nearest === null || Math.abs(point[0] - at) < Math.abs(nearest - at)) nearest = point[0];
        const row = document.createElement("div");
        row.textContent = curve.name + "  " + show(curve.axis.value(point[1]), curve.axis);
        tip.append(row);
      }
      if (nearest === null) return hide();
      const head = document.createElement("b");
      head.textContent = show(x.value(nearest), x);
      tip.prepend(head);
      const top = Math.min(y.left.from, y.left.to);
      cross.setAttribute("d", `M${nearest},${top}V${Math.max(y.left.from, y.left.to)}`);
      svg.append(cross);
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      tip.style.left = Math.max(4, left) + "px";
      tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 12) + "px";
    });
  }
  // On paper, what is folded is unfolded.
  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });
})();
