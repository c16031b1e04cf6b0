// A line or bar chart with uPlot, which is loaded when the first one is shown.
import { html, siteTime, useEffect, useRef } from "./lib.js";

const COLOURS = ["#4aa0ff", "#3fc47a", "#ffb13d", "#c792ea", "#ff6b6b", "#4dd0e1"];
let loading;
function library() {
  if (!loading) {
    const style = document.createElement("link");
    style.rel = "stylesheet"; style.href = "static/vendor/uplot.css";
    document.head.append(style);
    loading = import("./vendor/uplot.js").then((module) => module.default);
  }
  return loading;
}

// times in seconds; lines: [{label, values}]; bars: draw bars of the buckets' width.
export function Chart({ times, lines, bars = false, height = 190 }) {
  const box = useRef(), plot = useRef();
  const key = JSON.stringify([lines.map((l) => l.label), bars, document.documentElement.dataset.theme]);
  useEffect(() => {
    let isOver = false;
    const node = box.current, watch = new ResizeObserver(() => plot.current && plot.current.setSize({ width: node.clientWidth, height }));
    library().then((UPlot) => {
      if (isOver) return;
      const style = getComputedStyle(document.documentElement), dim = style.getPropertyValue("--dim"), edge = style.getPropertyValue("--edge");
      const axis = { stroke: dim, grid: { stroke: edge, width: 1 }, ticks: { stroke: edge, width: 1 } };
      plot.current = new UPlot({
        tzDate: (seconds) => siteTime(UPlot, seconds), width: node.clientWidth || 300, height, legend: { show: lines.length > 1 }, cursor: { y: false },
        axes: [axis, { ...axis, size: 46 }], scales: { y: { range: (u, low, high) => [0, Math.max(high * 1.1, 1)] } },
        series: [{}, ...lines.map(({ label }, i) => ({ label, stroke: COLOURS[i % COLOURS.length], fill: bars ? `${COLOURS[i % COLOURS.length]}66` : undefined, width: 1.5, points: { show: false }, paths: bars && lines.length < 3 ? UPlot.paths.bars(lines.length === 2 ? { size: [0.42, 40], align: i ? 1 : -1 } : { size: [0.8, 60] }) : undefined }))],
      }, [times, ...lines.map((l) => l.values)], node);
      watch.observe(node);
    });
    return () => { isOver = true; watch.disconnect(); if (plot.current) { plot.current.destroy(); plot.current = null; } };
  }, [key]);
  useEffect(() => { if (plot.current) plot.current.setData([times, ...lines.map((l) => l.values)]); });
  return html`<div class="chart" ref=${box} role="img" aria-label=${lines.map((l) => `${l.label}: ${l.values.length ? l.values[l.values.length - 1] : "–"}`).join(", ")}></div>`;
}
