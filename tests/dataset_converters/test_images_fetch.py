"""Fetching from a server that misbehaves: the right cause, in bounded time, and never a connection to an address that is not public."""

import asyncio
import time

import pytest

from dataset_converters import address, pace
from dataset_converters.causes import NotTried, Refused, Transient
from dataset_converters.fetch import Fetcher, Limits, _header, parse, retry_after, unpacker
from hostile_server import GOOD, HostileServer

FAST = {"max_bytes": 100_000, "timeout": 20.0, "retries": 0, "backoff": 0.02, "rate": 1000.0}


@pytest.fixture(scope="module")
def server():
    with HostileServer() as running:
        yield running


def fetch(*urls, allow_private=True, resolve=address.resolve, **limits):
    """Body or cause of each URL, fetched one after the other."""

    async def run():
        fetcher, results = Fetcher(Limits(**{**FAST, **limits}), allow_private, resolve=resolve), []
        try:
            for url in urls:
                try:
                    results.append(await fetcher.read(url))
                except Refused as error:
                    results.append(error.cause)
        finally:
            await fetcher.aclose()
        return results

    return asyncio.run(run())


@pytest.mark.parametrize("path", ["good", "chunked", "gzip", "hops/5"])
def test_good_answers(server, path):
    assert fetch(f"{server.url}/{path}") == [GOOD]


@pytest.mark.parametrize("path, cause", [
    ("missing", "http 404"), ("gone", "http 410"), ("flaky/never", "http 500"), ("cut", "cut off"), ("garbage", "cut off"),
    ("loop", "redirect loop"), ("hops/6", "too many redirects"), ("to_file", "bad url"), ("nowhere", "bad url"),
    ("big", "too many bytes"), ("endless", "too many bytes"), ("bomb", "too many bytes"), ("brotli", "unknown encoding"), ("bad_gzip", "broken encoding"),
])
def test_bad_answers(server, path, cause):
    assert fetch(f"{server.url}/{path}") == [cause]


@pytest.mark.parametrize("path", ["slow", "drip"])
def test_a_slow_server_does_not_hang(server, path):
    started = time.monotonic()
    assert fetch(f"{server.url}/{path}/once", timeout=0.3) == ["timeout"]
    assert time.monotonic() - started < 15  # the server would go on for a minute


def test_a_body_longer_than_its_content_length_ends_there(server):
    assert fetch(f"{server.url}/lying") == [GOOD[:100]]


def test_nobody_listens():
    assert fetch("http://127.0.0.1:1/x") == ["no connection"]


def test_retries(server):
    assert fetch(f"{server.url}/flaky/a", retries=2) == [GOOD] and server.asked["/flaky/a"] == 3
    assert fetch(f"{server.url}/flaky/b", retries=1) == ["http 500"] and server.asked["/flaky/b"] == 2
    assert fetch(f"{server.url}/cut_once", retries=1) == [GOOD]
    assert fetch(f"{server.url}/missing/x", retries=3) == ["http 404"] and server.asked["/missing/x"] == 1


def test_a_timeout_is_tried_again(server):
    asked = []

    async def counting(host, port):
        asked.append(host)
        return [host]

    assert fetch(f"{server.url}/drip/x", retries=1, timeout=0.2, resolve=counting) == ["timeout"] and len(asked) == 2


def test_retry_after_is_honoured_and_capped(server):
    assert fetch(f"{server.url}/busy/a", retries=1) == [GOOD]
    first, second = server.times["/busy/a"]
    assert second - first >= 1
    started = time.monotonic()
    assert fetch(f"{server.url}/patience", retries=1, max_wait=0.1) == ["http 503"]
    assert 0.1 <= time.monotonic() - started < 60


def test_retry_after_asks_for_patience_with_the_whole_host(server):
    async def run():
        fetcher = Fetcher(Limits(**{**FAST, "retries": 1}), allow_private=True)
        busy = asyncio.create_task(fetcher.read(f"{server.url}/busy/b"))
        while not fetcher._pace._blocked.get("127.0.0.1"):
            await asyncio.sleep(0.01)
        other = await fetcher.read(f"{server.url}/good/b")
        await busy
        await fetcher.aclose()
        return other

    assert asyncio.run(run()) == GOOD
    assert server.times["/good/b"][0] - server.times["/busy/b"][0] >= 1


def test_retry_after_is_read_in_all_its_forms():
    assert retry_after(None) is None and retry_after("soon") is None and retry_after("") is None and retry_after("-1") is None
    assert retry_after("7") == 7 and retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0 and retry_after("Wed, 21 Oct 2199 07:28:00 GMT") > 1e9
    assert retry_after("9" * 400) == float("inf") and retry_after("²") is None


def test_whatever_an_answer_raises_is_a_cause(monkeypatch):
    async def fail(*_):
        raise KeyError("x")

    monkeypatch.setattr(Fetcher, "_request", fail)
    assert fetch("http://example.com/x") == ["unexpected KeyError"]


def test_no_compression_no_cookies_no_credentials_are_asked_for(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert fetch(server.url.replace("//", "//user:secret@") + "/good") == [GOOD]  # and the proxy of the environment was not used
    headers = {name.lower(): value for name, value in server.seen_headers.items()}
    assert headers["accept-encoding"] == "identity" and not headers.keys() & {"authorization", "cookie"}


def test_a_proxy_only_where_it_is_given(server):
    async def run():
        fetcher = Fetcher(Limits(**FAST), allow_private=True, proxy=server.url.replace("//", "//user:secret@"))
        try:
            return await fetcher.read("http://shop.example/1.jpg")
        finally:
            await fetcher.aclose()

    assert asyncio.run(run()) == GOOD and server.asked["http://shop.example/1.jpg"] == 1
    assert server.seen_headers["Proxy-Authorization"].startswith("Basic ")


def test_rate_for_each_host(server):
    started = time.monotonic()
    assert fetch(*[f"{server.url}/good/rate"] * 4, rate=10) == [GOOD] * 4
    assert time.monotonic() - started >= 0.3


def test_a_silent_host_is_given_up(monkeypatch):
    monkeypatch.setattr(pace, "DEAD_AFTER", 3)
    assert fetch(*["http://127.0.0.1:1/x"] * 5) == ["no connection"] * 3 + ["host does not answer"] * 2
    assert not issubclass(NotTried, Transient)


@pytest.mark.parametrize("url", [
    "", "x", "/a/b.jpg", "ftp://example.com/x", "file:///etc/passwd", "javascript:alert(1)", "data:image/png;base64,AAAA", "http://", "http:///x",
    "http://a\nb/", "http://example.com:99999/", "http://example.com:0/", "http://[::1", "http://\ud800/", "gopher://x/", "http://example.com/" + "a" * 70_000,
])
def test_bad_urls(url):
    with pytest.raises(Refused, match="bad url"):
        parse(url)


def test_a_url_without_a_scheme_is_https():
    assert str(parse("//example.com/a b.jpg#x")) == "https://example.com/a%20b.jpg"


def test_hosts_take_turns():
    assert pace.by_turns(["a1", "a2", "a3", "b1", "c1", "c2"], key=lambda name: name[0]) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_a_bomb_is_unpacked_no_further_than_asked():
    import zlib

    packed = zlib.compress(b"\0" * 10_000_000)
    assert len(unpacker("deflate")(packed, 1000)) == 1000


def test_addresses_in_headers():
    assert _header("/bücher.jpg".encode()) == "/bücher.jpg" and _header(b"caf\xe9") == "café"
