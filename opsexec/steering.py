"""What text must not bring to a terminal."""

from __future__ import annotations

STEERING = (*range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Beside those below U+0020: characters that steer a terminal, or turn the reading direction and so hide text."""
