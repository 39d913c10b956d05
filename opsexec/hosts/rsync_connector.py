"""What rsync starts as its remote shell: hands its two pipes to whoever started rsync, then waits for a status.

Runs alone (`python -I -S`), so it imports nothing of ours. The socket's number comes as the first argument.
"""

import os
import socket
import sys


def main() -> None:
    """Send stdin, stdout and the words rsync wants run; exit as the other side says."""
    link = socket.socket(fileno=int(sys.argv[1]))
    socket.send_fds(link, [b"\0".join(os.fsencode(word) for word in sys.argv[2:])], [0, 1])
    os.close(0)
    os.close(1)
    status = link.recv(1)
    sys.exit(status[0] if status else 255)


if __name__ == "__main__":
    main()
