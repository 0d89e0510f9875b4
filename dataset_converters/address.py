"""Which addresses may be connected to. A name is resolved once, what it resolves to is checked, and that address is connected to.

So a name server that answers differently the second time (DNS rebinding) gains nothing, and every redirect is checked like a first request.
"""

import asyncio
import ipaddress
import socket

import httpcore2

from dataset_converters.causes import Refused, Transient

NAT64 = ipaddress.ip_network("64:ff9b::/96")
CONNECT_SECONDS = 10  # for one address of a name, so that a dead one leaves time for the next


def is_public(address):
    """Whether an IP address is one of the public network; an IPv4 address inside an IPv6 one is judged itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


async def resolve(host, port):
    """Addresses of a host name, IPv4 first.

    Raises:
        Refused: there is no such host, or (Transient) no name server that would tell.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        kind = Refused if error.errno == socket.EAI_NONAME else Transient
        raise kind("unknown host", silent=True) from None
    except UnicodeError:
        raise Refused("bad url") from None
    return list(dict.fromkeys(entry[4][0] for entry in sorted(found, key=lambda entry: entry[0] != socket.AF_INET)))


class GuardedBackend(httpcore2.AnyIOBackend):
    """httpcore's network, but it connects to checked addresses only; TLS still checks the certificate of the name.

    Args:
        allow_private (bool): connect anywhere.
        resolve (callable): async (host, port) -> list of addresses; a test may give its own.
    """

    def __init__(self, allow_private=False, resolve=resolve):
        self._allow_private, self._resolve = allow_private, resolve

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        """Connect to the first address of `host` that answers.

        Raises:
            Refused: one of its addresses is not public: a trick or a mistake, whatever the others are.
        """
        addresses = await self._resolve(host, port)
        if not self._allow_private and not all(map(is_public, addresses)):
            raise Refused("private address")
        seconds = min(timeout or CONNECT_SECONDS, CONNECT_SECONDS)
        for address in addresses:
            try:
                return await super().connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if address == addresses[-1]:
                    raise
