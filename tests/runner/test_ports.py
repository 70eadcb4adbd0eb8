"""Ports: the usual ones when they are free, others when not."""

import socket

import pytest

from runner.ports import LOCALHOST, free_port, reserved_ports


@pytest.mark.parametrize("host", [LOCALHOST, "0.0.0.0", "::1"])
def test_a_port_that_is_listened_on_is_left_alone(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        try:
            server.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} on this machine")
        server.listen()
        taken = server.getsockname()[1]
        assert free_port(taken) != taken


def test_the_usual_port_is_used_when_it_is_free():
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        port = probe.getsockname()[1]
    assert free_port(port) == port


def test_ports_differ_even_when_the_same_one_is_wanted_twice():
    port = free_port(18080)
    with reserved_ports(port, port, port) as ports:
        assert len(set(ports)) == 3


def test_two_runners_that_start_together_get_different_ports():
    port = free_port(18080)
    with reserved_ports(port) as one, reserved_ports(port) as other:
        assert one == [port] and other != one
    with reserved_ports(port) as again:
        assert again == [port]
