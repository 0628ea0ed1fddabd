// A sheet of paper to draw on, with mouse, pen or finger. After each stroke it triggers `input` with
// the drawing as a PNG in a data URL, dark ink on white; an empty sheet is an empty text.
const canvas = element.querySelector("canvas");
const [undo, clear] = element.querySelectorAll("button");
const paper = canvas.getContext("2d");
const WIDTH = 30; // of the pen, in pixels of the canvas: a tenth of a character, as on real pages
let strokes = [];
let pointer = null; // the one that draws: a second finger or the palm does not
let timer = null;

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

function draw() {
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, canvas.width, canvas.height);
  paper.strokeStyle = "#111";
  paper.lineWidth = WIDTH;
  paper.lineCap = paper.lineJoin = "round";
  for (const points of strokes) {
    paper.beginPath();
    paper.moveTo(...points[0]);
    for (let i = 1; i < points.length - 1; i++) { // through the middles: a smooth curve
      const [x, y] = points[i], [nextX, nextY] = points[i + 1];
      paper.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    paper.lineTo(...points[points.length - 1]);
    paper.stroke();
  }
  undo.disabled = clear.disabled = !strokes.length;
  canvas.parentElement.classList.toggle("drawn", strokes.length > 0);
}

function send() {
  clearTimeout(timer);
  const image = strokes.length ? canvas.toDataURL("image/png") : "";
  timer = setTimeout(() => trigger("input", { image }), 200); // a next stroke may follow
}

function change(update) {
  update();
  draw();
  send();
}

canvas.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  canvas.setPointerCapture(pointer);
  clearTimeout(timer);
  strokes.push([place(event)]);
  draw();
});
canvas.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const between = event.getCoalescedEvents?.() ?? []; // empty in some browsers
  for (const one of between.length ? between : [event]) {
    strokes[strokes.length - 1].push(place(one));
  }
  draw();
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    send();
  });
}
undo.addEventListener("click", () => change(() => strokes.pop()));
clear.addEventListener("click", () => change(() => (strokes = [])));
draw();
