"""What tests of several real processes share."""

import socket


def joining_arguments(num_processes: int) -> list[list[str]]:
    """The arguments by which so many processes find each other over loopback; none for one that is alone."""
    if num_processes == 1:
        return [[]]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = [f"--processes.coordinator=127.0.0.1:{port}", f"--processes.num-processes={num_processes}"]
    return [[*shared, f"--processes.process-id={number}"] for number in range(num_processes)]
