# SPDX-FileCopyrightText: Infini <https://infini.fr>
# SPDX-License-Identifier: GPL-3.0-or-later
"""DNS servers on loopback that answer as a test tells them to, all on the same port of different addresses."""

import contextlib
import socket
import socketserver
import threading

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


def rrset(name, ttl, kind, *values):
    return dns.rrset.from_text_list(f"{name}.", ttl, "IN", kind, list(values))


class Authority:
    """Answers from a zone's rrsets by exact name alone; `lies` replace the answer to a question on one transport."""

    def __init__(self, zone, nameservers=("ns.example",), *, keys=()):
        self.origin = dns.name.from_text(zone.name)
        self.data = {}
        for one in zone.rrsets.values():
            self.put(one.name, one.type, one.ttl, *one.values)
        self.put("@", "SOA", 300, "ns.example. hostmaster.example. 7 1 1 1 300")
        self.put("@", "NS", 300, *(f"{server}." for server in nameservers))
        if keys:
            self.put("@", "DNSKEY", 300, *keys)
        self.lies = {}
        self.asked = []

    def put(self, name, kind, ttl, *values):
        owner, origin = dns.name.from_text(name, self.origin), self.origin
        self.data[owner, kind] = dns.rrset.from_text_list(
            owner, ttl, "IN", kind, values, origin=origin, relativize=False
        )

    def lie(self, name, kind, answer, transports=("UDP", "TCP")):
        for transport in transports:
            self.lies[dns.name.from_text(name, self.origin), kind, transport] = answer

    def __call__(self, query, transport):
        name, kind = query.question[0].name, dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append((name, kind, transport))
        said = dns.message.make_response(query)
        lie = self.lies.get((name, kind, transport))
        if lie:
            return lie(said)
        said.flags |= dns.flags.AA
        found = self.data.get((name, kind)) or self.data.get((name, "CNAME"))
        if found:
            said.answer = [found]
        elif not any(held == name for held, _ in self.data):
            said.set_rcode(dns.rcode.NXDOMAIN)
        return said


def says(rcode):
    """Return a lie: only a code."""

    def lie(said):
        said.set_rcode(rcode)
        return said

    return lie


def gives(*rrsets, authoritative=True):
    """Return a lie: these rrsets."""

    def lie(said):
        said.flags |= dns.flags.AA if authoritative else 0
        said.answer = list(rrsets)
        return said

    return lie


def silent(_said):
    return None


def cut_short(said):
    """Return a lie: ask again over TCP."""
    said.flags |= dns.flags.TC | dns.flags.AA
    return said


class _Udp(socketserver.BaseRequestHandler):
    def handle(self):
        packet, out = self.request
        said = self.server.answer(dns.message.from_wire(packet, keyring=False), "UDP")
        if said is not None:
            out.sendto(said.to_wire(), self.client_address)


class _Tcp(socketserver.BaseRequestHandler):
    def handle(self):
        for _ in range(self.server.patience):
            size = self.request.recv(2, socket.MSG_WAITALL)
            if len(size) < 2:
                return
            packet = self.request.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
            said = self.server.answer(dns.message.from_wire(packet, keyring=False), "TCP")
            if said is None:
                return
            wire = said.to_wire()
            self.request.sendall(len(wire).to_bytes(2, "big") + wire)


class _UdpServer(socketserver.ThreadingUDPServer):
    daemon_threads = True


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    patience = 10**6


@contextlib.contextmanager
def serving(answers, patience=10**6):
    """Serve a function for each address, on one free port, which is given; TCP is closed after `patience` answers."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            with contextlib.suppress(OSError):
                port = _bind(stack, answers, patience)
                break
            stack.close()
        yield port


def _bind(stack, answers, patience):
    port = 0
    for address, answer in answers.items():
        for kind, handler in ((_UdpServer, _Udp), (_TcpServer, _Tcp)):
            server = stack.enter_context(kind((address, port), handler))
            server.answer, server.patience = answer, patience
            port = server.server_address[1]
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            stack.callback(server.shutdown)
    return port
