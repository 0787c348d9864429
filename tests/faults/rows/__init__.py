"""Every row of the scoreboard in order, and those that are not built yet."""

from __future__ import annotations

from tests.faults.row import Row
from tests.faults.rows import (
    r01,
    r02,
    r03,
    r04,
    r05,
    r06,
    r07,
    r09,
    r10,
    r11,
    r12,
    r13,
    r14,
    r16,
    r17,
    r18,
    r19,
    r21,
    r22,
    r23,
    r25,
    r26,
    s07,
    s08,
)

MODULES = (
    r01, r02, r03, r04, r05, r06, r07, r09, r10, r11, r12, r13, r14, r16, r17, r18, r19, r21, r22, r23,
    r25, r26, s07, s08,
)  # fmt: skip
ROWS: tuple[Row, ...] = tuple(module.ROW for module in MODULES)
NOT_YET = {
    "R7 MQTT": "devices over MQTT while auth is away",
    "R6 chat": "chat history while Redis is away",
    "R25 MQTT": "the same readings over MQTT",
    "S8 WebSockets": "200 silent WebSockets",
}
