// Drawing over a picture: boxes, ids, zones and lines, in the pixels of the tile.
const ZONE = "#4cc27a", BUSY = "#ffb03a", LINE = "#4aa8ff", DARK = "rgba(12,14,18,.78)";
const DASH = [6, 4];

// The colour of a track: neighbours in number differ much.
export function colourOf(trackId) {
  return trackId < 0 ? "#ffd43b" : `hsl(${(trackId * 137.508) % 360} 85% 62%)`;
}

// Draw a label that ends at y, or below a taken rectangle that it would cover. Returns its own: [left, top, right, bottom].
function label(context, text, x, y, colour, scale, taken = []) {
  const size = 12 * scale, pad = 4 * scale;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const wide = context.measureText(text).width + 2 * pad, high = size + 1.4 * pad, { width, height } = context.canvas;
  x = Math.min(Math.max(x, 0), Math.max(width - wide, 0));
  const heights = [Math.max(y, high), ...taken.map((each) => each[3] + high).filter((bottom) => bottom <= height)];
  const isFree = (bottom) => taken.every(([left, top, right, under]) => x >= right || x + wide <= left || bottom <= top || bottom - high >= under);
  y = heights.find(isFree) ?? heights[0];
  context.fillStyle = DARK;
  context.fillRect(x, y - high, wide, high);
  context.fillStyle = colour;
  context.fillRect(x, y - high, 3 * scale, high);
  context.fillStyle = "#fff";
  context.fillText(text, x + pad + 1 * scale, y - pad);
  return [x, y - high, x + wide, y];
}

// area: {x, y, width, height} of the picture in canvas pixels. Labels leave the taken rectangles free.
export function drawBoxes(context, area, message, { dashed = false, scale = 1, names = true, taken = [] } = {}) {
  const sx = area.width / message.width, sy = area.height / message.height;
  context.save();
  for (const object of message.objects) {
    const [x1, y1, x2, y2] = object.xyxy;
    const colour = colourOf(object.track_id);
    context.setLineDash(dashed || object.predicted ? DASH.map((v) => v * scale) : []);
    context.lineWidth = 2 * scale;
    context.strokeStyle = colour;
    context.strokeRect(area.x + x1 * sx, area.y + y1 * sy, (x2 - x1) * sx, (y2 - y1) * sy);
    if (names) {
      const speed = object.kmh === undefined || object.kmh === null ? "" : ` ${Math.round(object.kmh)} km/h`;
      const id = object.track_id >= 0 ? `#${object.track_id} ` : "";
      label(context, `${id}${object.class_name}${speed}`, area.x + x1 * sx - scale, area.y + y1 * sy - scale, colour, scale, taken);
    }
  }
  context.restore();
}

const sum = (counts) => Object.values(counts || {}).reduce((a, b) => a + b, 0);

export function drawPlaces(context, area, places, analytics, { scale = 1, names = true } = {}) {
  const at = ([x, y]) => [area.x + x * area.width, area.y + y * area.height], taken = [];
  context.save();
  for (const [name, zone] of Object.entries(places.zones || {})) {
    const inside = analytics ? sum(analytics.zones[name]) : 0;
    const colour = inside ? BUSY : ZONE;
    const points = zone.points.map(at);
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.globalAlpha = 0.12; context.fillStyle = colour; context.fill(); context.globalAlpha = 1;
    context.lineWidth = 1.5 * scale; context.strokeStyle = colour; context.stroke();
    const top = points.reduce((a, b) => (b[1] < a[1] ? b : a));
    if (names) taken.push(label(context, analytics ? `${name}  ${inside}` : name, top[0], top[1], colour, scale));
  }
  for (const [name, line] of Object.entries(places.lines || {})) {
    const points = line.points.map(at);
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.lineWidth = 2.5 * scale; context.strokeStyle = LINE; context.stroke();
    const middle = Math.floor(points.length / 2), [ax, ay] = points[middle - 1], [bx, by] = points[middle];
    const length = Math.hypot(bx - ax, by - ay) || 1, ux = (bx - ax) / length, uy = (by - ay) / length;
    const cx = (ax + bx) / 2, cy = (ay + by) / 2, reach = 26 * scale;
    const tx = cx - uy * reach, ty = cy + ux * reach; // to the right of who walks along it
    context.beginPath();
    context.moveTo(cx, cy); context.lineTo(tx, ty);
    context.moveTo(tx + (uy - ux) * 7 * scale, ty + (-ux - uy) * 7 * scale); context.lineTo(tx, ty);
    context.lineTo(tx + (uy + ux) * 7 * scale, ty + (uy - ux) * 7 * scale);
    context.stroke();
    if (!names) continue;
    const counts = analytics && analytics.lines[name];
    const text = counts ? Object.entries(counts).map(([direction, by]) => `${direction.replace(/_/g, " ")} ${sum(by)}`).join(" · ") : "";
    taken.push(label(context, text ? `${name}: ${text}` : name, ax, Math.min(ay, by) - 6 * scale, LINE, scale, taken));
  }
  context.restore();
  return taken;
}

// The rectangle that a picture of this shape covers in a canvas, as `object-fit: contain` places it.
export function contained(width, height, canvasWidth, canvasHeight) {
  const scale = Math.min(canvasWidth / width, canvasHeight / height);
  return { x: (canvasWidth - width * scale) / 2, y: (canvasHeight - height * scale) / 2, width: width * scale, height: height * scale };
}
