"""Bytes behind a URL, fetched with patience and within bounds: size, time, redirects, addresses, pace.

Built on httpcore2, the connection layer of httpx2, because it does nothing by itself: no redirects, no proxies from the environment, no
cookies, no decompression. httpx2 is the maintained continuation of httpx, whose last release is of December 2024.
"""

import asyncio
import random
import ssl
import time
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpcore2
import httpx2

from dataset_converters.address import GuardedBackend, resolve
from dataset_converters.causes import NotTried, Refused, Transient
from dataset_converters.pace import Pace

REDIRECTS = (301, 302, 303, 307, 308)
TRY_AGAIN = (408, 425, 429)  # and all of 5xx


@dataclass(frozen=True)
class Limits:
    """What one picture may take.

    `timeout` is in seconds for one attempt, from the first byte sent to the last received and over all its redirects, time in the queue not
    counted. Between attempts the wait is `backoff` seconds, doubled each time and shortened by up to a half at random, or what the
    server's Retry-After says where that is more, and never above `max_wait`.
    """

    max_bytes: int = 20 * 2**20
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 1.0
    max_wait: float = 60.0
    max_redirects: int = 5
    rate: float = 20.0
    concurrency: int = 16


class Fetcher:
    """Fetches URLs.

    Args:
        limits (Limits)
        allow_private (bool): connect to private, loopback and other addresses that are not public, too.
        proxy (str, optional): URL of a proxy, which then resolves the names: their addresses cannot be checked here.
        user_agent (str)
        resolve (callable): see :class:`GuardedBackend`.
    """

    def __init__(self, limits, allow_private=False, proxy=None, user_agent="recbole_molar-images", resolve=resolve):
        self._limits, self._pace = limits, Pace(limits.rate)
        self._headers = {"User-Agent": user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        options = {"max_connections": limits.concurrency, "keepalive_expiry": 15.0, "ssl_context": httpcore2.default_ssl_context()}
        if proxy:
            given = httpx2.Proxy(proxy)  # knows a user and a password in the URL
            self._pool = httpcore2.AsyncConnectionPool(proxy=httpcore2.Proxy(str(given.url), auth=given.raw_auth), **options)
        else:
            self._pool = httpcore2.AsyncConnectionPool(network_backend=GuardedBackend(allow_private, resolve), **options)

    async def aclose(self):
        """Close all connections."""
        await self._pool.aclose()

    def group(self, url):
        """The host, as far as it can be told: requests to each keep their own pace."""
        return "".join(url.split("/", 3)[2:3])

    async def read(self, url):
        """The body of the answer, bytes.

        Raises:
            Refused: with the cause of the last attempt.
        """
        for attempt in range(self._limits.retries + 1):
            try:
                return await self._follow(url)
            except Transient as error:
                if attempt == self._limits.retries:
                    raise
                wait = self._limits.backoff * 2**attempt * random.uniform(0.5, 1)
                await asyncio.sleep(min(max(wait, error.wait or 0), self._limits.max_wait))

    async def _follow(self, url):
        """One attempt, over all redirects."""
        seen, left = set(), self._limits.timeout
        while True:
            target = parse(url)
            if str(target) in seen:
                raise Refused("redirect loop")
            if len(seen) > self._limits.max_redirects:
                raise Refused("too many redirects")
            seen.add(str(target))
            if self._pace.is_dead(target.host):
                raise NotTried("host does not answer")
            await self._pace.wait(target.host)
            started = time.monotonic()
            body, location = await self._timed(target, left)
            if location is None:
                return body
            left -= time.monotonic() - started
            url = join(target, location)

    async def _timed(self, target, seconds):
        """One request within `seconds`, with every failure named."""
        try:
            answer = await asyncio.wait_for(self._request(target), max(seconds, 0))
        except (asyncio.TimeoutError, httpcore2.TimeoutException):  # noqa: UP041  two classes before Python 3.11
            failure = Transient("timeout", silent=True)
        except Refused as error:
            failure = error
        except Exception as error:  # hostile answers: one picture must not end a run, nor every run after it
            failure = Refused(f"unexpected {type(error).__name__}")
        else:
            failure = None
        self._pace.count(target.host, answered=failure is None or not failure.silent)
        if failure is None:
            return answer
        if getattr(failure, "wait", None) is not None:
            self._pace.postpone(target.host, min(failure.wait, self._limits.max_wait))
        raise failure

    async def _request(self, target):
        """(body, None), or (None, where a redirect leads)."""
        url = httpcore2.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
        try:
            async with self._pool.stream("GET", url, headers=self._headers) as response:
                headers = {name.lower(): _header(value) for name, value in response.headers}
                if response.status in REDIRECTS and headers.get(b"location"):
                    return None, headers[b"location"]
                if response.status in TRY_AGAIN or response.status >= 500:
                    raise Transient(f"http {response.status}", retry_after(headers.get(b"retry-after")))
                if response.status != 200:
                    raise Refused(f"http {response.status}")
                return await self._body(response, headers), None
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
                raise Refused("bad certificate") from error
            raise Transient("no connection", silent=True) from error
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError, httpcore2.ProxyError, OSError) as error:  # OSError: TLS while reading
            raise Transient("cut off") from error
        except (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as error:
            raise Refused("bad url") from error

    async def _body(self, response, headers):
        most = self._limits.max_bytes
        if headers.get(b"content-length", "0").isdecimal() and int(headers.get(b"content-length", "0")) > most:
            raise Refused("too many bytes")
        unpack = unpacker(headers.get(b"content-encoding", ""))
        received, body = 0, bytearray()
        async for chunk in response.aiter_stream():
            received += len(chunk)
            body += unpack(chunk, most + 1 - len(body))
            if max(received, len(body)) > most:
                raise Refused("too many bytes")
        return bytes(body)


def _header(value):
    """A header as text; addresses in UTF-8 are common, though not allowed."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def parse(url):
    """A URL of the web as httpx2.URL; `//host/path`, as in many scraped catalogues, is https.

    Raises:
        Refused: another scheme, no host, or no URL at all.
    """
    try:
        target = httpx2.URL(f"https:{url}" if url.startswith("//") else url)
        valid = target.scheme in ("http", "https") and target.host and (target.port is None or 0 < target.port < 65536)
    except (httpx2.InvalidURL, ValueError):
        valid = False
    if not valid:
        raise Refused("bad url")
    return target.copy_with(fragment=None)


def join(target, location):
    """Where a redirect leads, as a string; checked by :func:`parse` like every URL."""
    try:
        return str(target.join(location))
    except (httpx2.InvalidURL, ValueError):
        raise Refused("bad url") from None


def retry_after(value):
    """Seconds that a Retry-After header asks for, given in seconds or as a date; None where there is none or it is no such thing."""
    try:
        if value is None or value.strip().isdecimal():
            return value and float(value)
        date = parsedate_to_datetime(value)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def unpacker(encoding):
    """Function (chunk, at most so many bytes) -> bytes for a Content-Encoding; some servers compress unasked.

    Raises:
        Refused: the encoding is none of gzip, deflate and identity, or, later, the data is not in it.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return lambda chunk, most: chunk
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refused("unknown encoding")
    inflate = zlib.decompressobj(47)  # 47: gzip or zlib, whichever its header says

    def unpack(chunk, most):
        try:
            return inflate.decompress(chunk, most)
        except zlib.error:
            raise Refused("broken encoding") from None

    return unpack
