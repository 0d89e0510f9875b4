"""A real HTTP server on the loopback that misbehaves in one way at each path, and counts what it is asked for."""

import collections
import gzip
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


def picture(size=(40, 60), colour="red", form="JPEG", **options):
    """Bytes of a picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form, **options)
    return buffer.getvalue()


GOOD = picture()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = "good" if self.path.startswith("http://") else self.path.strip("/").partition("/")[0]  # a whole URL: asked as a proxy
        with self.server.lock:
            self.server.asked[self.path] += 1
            self.server.times[self.path].append(time.monotonic())
            self.server.seen_headers = dict(self.headers)
        getattr(self, f"go_{name}", self.go_missing)()

    def log_message(self, *_):
        pass

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        headers = {"content_length": len(body), "content_type": "image/jpeg", **headers}
        for key, value in headers.items():
            if value is not None:
                self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def times_asked(self):
        return self.server.asked[self.path]

    def go_good(self):
        self.answer(body=GOOD)

    def go_missing(self):
        self.answer(404)

    def go_gone(self):
        self.answer(410)

    def go_slow(self):
        self.server.stopped.wait(60)
        self.answer(body=GOOD)

    def go_drip(self):
        self.answer(content_length=100_000)
        while not self.server.stopped.wait(0.05):
            try:
                self.wfile.write(b"x")
            except OSError:
                break
        self.close_connection = True

    def go_cut(self):
        self.answer(body=GOOD[:100], content_length=len(GOOD))
        self.close_connection = True

    def go_cut_once(self):
        self.go_good() if self.times_asked() > 1 else self.go_cut()

    def go_html(self):
        self.answer(body=b"<html>not found, but 200</html>")

    def go_loop(self):
        self.answer(302, location="/loop2")

    def go_loop2(self):
        self.answer(301, location="/loop")

    def go_hops(self):
        """/hops/3: three redirects, then the picture."""
        left = int(self.path.rpartition("/")[2])
        self.answer(307, location=f"/hops/{left - 1}" if left > 1 else "/good")

    def go_to(self):
        """/to/<host and path>: a redirect there."""
        self.answer(302, location="http://" + self.path.removeprefix("/to/"))

    def go_to_file(self):
        self.answer(302, location="file:///etc/passwd")

    def go_nowhere(self):
        self.answer(302, location="http://[::1")

    def go_busy(self):
        """429 once, asking for a second of patience."""
        self.go_good() if self.times_asked() > 1 else self.answer(429, retry_after=1)

    def go_patience(self):
        self.answer(503, retry_after=3600)

    def go_flaky(self):
        self.go_good() if self.times_asked() > 2 else self.answer(500)

    def go_big(self):
        self.answer(body=b"x" * 300_000)

    def go_endless(self):
        """No Content-Length, and no end."""
        self.answer(content_length=None, connection="close")
        try:
            while not self.server.stopped.is_set():
                self.wfile.write(b"x" * 10_000)
        except OSError:
            pass
        self.close_connection = True

    def go_lying(self):
        """More than Content-Length says."""
        self.answer(body=GOOD + b"x" * 50_000, content_length=100)
        self.close_connection = True

    def go_bomb(self):
        self.answer(body=gzip.compress(b"\0" * 3_000_000, 1), content_encoding="gzip")

    def go_gzip(self):
        self.answer(body=gzip.compress(GOOD), content_encoding="gzip")

    def go_brotli(self):
        self.answer(body=GOOD, content_encoding="br")

    def go_bad_gzip(self):
        self.answer(body=GOOD, content_encoding="gzip")

    def go_garbage(self):
        self.wfile.write(b"\0\1\2 no HTTP at all\r\n\r\n")
        self.close_connection = True

    def go_chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(GOOD), 100):
            part = GOOD[start:start + 100]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


class HostileServer(ThreadingHTTPServer):
    """Context manager; `asked` counts requests by path, `times` has the time of each."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address="127.0.0.1", port=0):
        super().__init__((address, port), Handler)
        self.asked, self.times = collections.Counter(), collections.defaultdict(list)
        self.lock, self.stopped, self.seen_headers = threading.Lock(), threading.Event(), {}
        self.url = f"http://{address}:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is what many tests are about."""
