"""Addresses: what is not public is refused, on the address connected to, at first and at every redirect."""

import asyncio
import ssl
import subprocess

import pytest

from dataset_converters import address
from dataset_converters.causes import Refused
from hostile_server import GOOD, HostileServer
from test_images_fetch import fetch


@pytest.mark.parametrize("ip", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"])
def test_public(ip):
    assert address.is_public(ip)


@pytest.mark.parametrize("ip", [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2002:c0a8:101::", "2001:0:1::1",
])
def test_not_public(ip):
    assert not address.is_public(ip)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0", "169.254.169.254"])
def test_private_hosts_are_refused_however_they_are_written(host):
    assert fetch(f"http://{host}/x", allow_private=False) == ["private address"]


@pytest.fixture
def public_loopback(monkeypatch):
    """127.0.0.1 counts as public, so that a server of the "web" can run here; 127.0.0.2 does not."""
    real = address.is_public
    monkeypatch.setattr(address, "is_public", lambda ip: ip == "127.0.0.1" or real(ip))


def test_a_redirect_to_a_private_address_is_refused(public_loopback):
    with HostileServer() as web, HostileServer("127.0.0.2") as inside:
        assert fetch(f"{web.url}/good", f"{web.url}/to/127.0.0.2:{inside.server_port}/good", allow_private=False) == [GOOD, "private address"]
        assert fetch(f"{web.url}/to/169.254.169.254/latest/meta-data", allow_private=False) == ["private address"]
        assert not inside.asked


def test_what_was_checked_is_what_is_connected_to(public_loopback):
    """A name server that says something else the second time: it is asked once for a connection, and its answer is the address used."""
    asked = []

    async def rebinding(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with HostileServer() as web:
        with HostileServer("127.0.0.2", web.server_port) as inside:
            name = f"http://rebinding.example:{web.server_port}"
            assert fetch(f"{name}/good", allow_private=False, resolve=rebinding) == [GOOD]
            assert asked == ["rebinding.example"] and web.seen_headers["Host"] == f"rebinding.example:{web.server_port}"
            assert fetch(f"{name}/good", allow_private=False, resolve=rebinding) == ["private address"]
            assert not inside.asked


def test_one_private_address_among_public_ones_is_refused(public_loopback):
    async def mixed(host, port):
        return ["127.0.0.1", "10.0.0.1"]

    with HostileServer() as web:
        assert fetch(f"http://mixed.example:{web.server_port}/good", allow_private=False, resolve=mixed) == ["private address"]
        assert not web.asked


def test_the_next_address_is_tried_when_one_is_dead():
    async def two(host, port):
        return ["127.0.0.3", "127.0.0.1"]

    with HostileServer() as web:
        assert fetch(f"http://two.example:{web.server_port}/good", resolve=two) == [GOOD]


def test_unknown_hosts(monkeypatch):
    import socket

    async def run(number):
        def fail(*_, **__):
            raise socket.gaierror(number, "no")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(Refused, match="unknown host") as caught:
            await address.resolve("x.example", 80)
        return type(caught.value).__name__

    assert asyncio.run(run(socket.EAI_NONAME)) == "Refused" and asyncio.run(run(socket.EAI_AGAIN)) == "Transient"


def test_tls_is_for_the_name_although_the_address_is_connected_to(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=shop.example",
               "-addext", "subjectAltName=DNS:shop.example", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the openssl command to make a certificate")

    async def here(host, port):
        return ["127.0.0.1"]

    with HostileServer() as web:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        web.socket = context.wrap_socket(web.socket, server_side=True)
        shop, other = (f"https://{name}.example:{web.server_port}/good" for name in ("shop", "other"))
        assert fetch(shop, resolve=here) == ["bad certificate"]  # nobody vouches for it
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetch(shop, other, resolve=here) == [GOOD, "bad certificate"]
