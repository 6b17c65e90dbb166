"""LiteRT.js, the runtime of the web page, in a headless Chromium: one TFLite file, run on images sent to a page.

A page fetches one image after the other from a server of this process, and posts the outputs back.
"""

from __future__ import annotations

import ctypes
import functools
import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from typing import Any

import numpy as np

from converters.errors import InputError
from edge_cv.deploy.web import litertjs

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install chromium npm"
TYPES = ("float32", "uint8")  # of LiteRT.js's tensors that a file's input and output can have
START_SECONDS = 60
_FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl
_PAGE = """<!DOCTYPE html>
<meta charset="utf-8">
<script type="importmap">
  { "imports": { "@litertjs/core": "./litert/core.js", "@litertjs/wasm-utils": "./litert/wasm-utils.js" } }
</script>
<script type="module">
  const post = (path, body) => fetch(path, { method: "POST", body })
  try {
    const litert = await import("@litertjs/core")
    await litert.loadLiteRt(new URL("litert/wasm/", document.baseURI).href, { threads: false })
    const content = new Uint8Array(await (await fetch("model")).arrayBuffer())
    const model = await litert.loadAndCompile(content, { accelerator: "wasm", cpuOptions: { numThreads: 1 } })
    const { dtype, shape } = await (await fetch("input")).json()
    await post("ready", "")
    for (;;) {
      const bytes = await (await fetch("image")).arrayBuffer()
      const input = new litert.Tensor(dtype === "float32" ? new Float32Array(bytes) : new Uint8Array(bytes), shape)
      const outputs = await model.run([input])
      await post("outputs", outputs[0].toTypedArray().slice())
      for (const tensor of [input, ...outputs]) tensor.delete()
    }
  } catch (error) {
    await post("error", String(error?.message ?? error))
  }
</script>
"""


def version() -> str | None:
    """The version of LiteRT.js; None unless Chromium is here, and LiteRT.js in the cache or from npm now."""
    return litertjs.VERSION if _chromium() is not None and _fetched() else None


@functools.cache
def _fetched() -> bool:
    """Whether LiteRT.js is at hand; it is fetched once for the user, and tried once in a process."""
    try:
        litertjs.fetch()
    except InputError:
        return False
    return True


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A TFLite file that is open in Chromium: a callable from the input of one image to the file's output.

    A file with int8 input and output gets a QUANTIZE to uint8 at each end, which adds 128 and changes no value.
    """

    def __init__(self, content: bytes) -> None:
        from converters.quantization.normalization import with_io
        from converters.tflite.graph import Graph

        graph = Graph(content)
        types = {str(graph.dtype(tensor)) for tensor in (*graph.inputs, *graph.outputs)}
        if len(graph.outputs) != 1:
            raise InputError(f"LiteRT.js is given files of one output here. Received: {len(graph.outputs)}")
        self._shifted = types == {"int8"}
        if not self._shifted and not types <= set(TYPES):
            raise InputError(f"LiteRT.js takes float32, uint8 and int8. Received: {', '.join(sorted(types))}")
        self._dtype = np.dtype(graph.dtype(graph.outputs[0]))
        content = with_io(content, "uint8", None) if self._shifted else content
        shape = [int(side) for side in graph.shape(graph.inputs[0])]
        dtype = "uint8" if self._shifted else str(graph.dtype(graph.inputs[0]))
        self._images: queue.Queue[bytes] = queue.Queue()
        self._answers: queue.Queue[tuple[str, bytes]] = queue.Queue()
        gets = {"/": _PAGE.encode(), "/model": content, "/input": json.dumps({"dtype": dtype, "shape": shape}).encode()}
        gets |= {f"/{path}": text for path, text in litertjs.files().items()}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(gets, self._images, self._answers))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._folder = tempfile.TemporaryDirectory(prefix="edge_cv_", ignore_cleanup_errors=True)
        self._process = _started(f"http://127.0.0.1:{self._server.server_port}/", self._folder.name)
        try:
            self._answer("ready", START_SECONDS)
        except InputError:
            self.close()
            raise

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """The output for the input of one image, in the file's type."""
        shifted = (image.astype(np.int16) + 128).astype(np.uint8) if self._shifted else image
        self._images.put(shifted.tobytes())
        content = self._answer("outputs", None)
        if not self._shifted:
            return [np.frombuffer(content, self._dtype)]
        return [(np.frombuffer(content, np.uint8).astype(np.int16) - 128).astype(np.int8)]

    def close(self) -> None:
        """End Chromium and the server."""
        self._process.kill()
        self._process.wait()
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def _answer(self, wanted: str, seconds: float | None) -> bytes:
        try:
            kind, content = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise InputError(f"Chromium does not start LiteRT.js within {seconds} s") from None
        if kind != wanted:
            raise InputError(content.decode(errors="replace")[:200] or "LiteRT.js stopped")
        return content


def _started(address: str, profile: str) -> subprocess.Popen:
    flags = [*_FLAGS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    prctl = ctypes.CDLL(None).prctl
    return subprocess.Popen(
        [_chromium() or NAMES[0], *flags, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: prctl(_DIE_WITH_PARENT, signal.SIGKILL),
    )


def _handler(gets: dict[str, bytes], images: queue.Queue[bytes], answers: queue.Queue[tuple[str, bytes]]) -> Any:
    """The server's handler: files, the next image, and what the page posts."""
    kinds = {"js": "text/javascript", "wasm": "application/wasm"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            content = images.get() if path == "/image" else gets.get(path)
            self._reply(
                404 if content is None else 200, content or b"", kinds.get(path.rpartition(".")[2], "text/html")
            )

        def do_POST(self) -> None:
            answers.put((self.path[1:], self.rfile.read(int(self.headers["Content-Length"]))))
            self._reply(200, b"", "text/plain")

        def _reply(self, code: int, content: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
