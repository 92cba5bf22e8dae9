// The side of the page: a worker that answers one question after the other.

class Engine {
  /** `code` is the worker's program; it is started from a Blob, as a page that was opened from a disk cannot load files. */
  constructor(code) {
    this.worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    this.waiting = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data }) => this.answer(data);
    this.worker.onerror = (event) => this.fail(event.message || "the worker could not be started");
  }

  ask(task, given, transfer = []) {
    return new Promise((resolve, reject) => {
      this.waiting.set(++this.count, [resolve, reject]);
      this.worker.postMessage({ id: this.count, task, given }, transfer);
    });
  }

  answer({ id, found, failed }) {
    const [resolve, reject] = this.waiting.get(id);
    this.waiting.delete(id);
    if (failed === undefined) resolve(found);
    else reject(new Error(failed));
  }

  fail(message) {
    for (const [, reject] of this.waiting.values()) reject(new Error(message));
    this.waiting.clear();
  }
}

/** Bytes of an element that holds them as base64, deflated, the first of each two in front of the second ones. */
async function bytesOf(id) {
  const element = document.getElementById(id);
  if (!element) return null;
  const text = element.textContent;
  const letters = (letter) => letter.charCodeAt(0);
  const packed = Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), letters);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const bytes = new Uint8Array(planes.length);
  const half = planes.length / 2;
  for (let i = 0; i < half; i++) {
    bytes[2 * i] = planes[i];
    bytes[2 * i + 1] = planes[half + i];
  }
  return bytes.buffer.slice(0, Number(element.dataset.length));
}
