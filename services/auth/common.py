"""Passwords anybody would try first and no list of leaked ones has: those of this place, and rows of keys."""

from __future__ import annotations

COMMON = frozenset(
    """
    posthouse123 posthouse1234567 posthouseadmin posthousepassword posthouseposthouse rabbitmq123
    rabbitmqpassword raspberrypi raspberrypi1234 thingspeak administratoradministrator changeme1234567
    changemechangeme changethispassword pleasechangeme pleasechangethis mypassword1234567
    helloworld1234567 correct-horse-battery-staple correct.horse.battery.staple
    loremipsumdolor loremipsumdolorsitamet onceuponatimeinamerica tobeornottobethatisthequestion
    supercalifragilisticexpialidocious thequickbrownfoxjumpsoverthelazydog
    """.split()  # noqa: SIM905
)

_RUNS = (
    "0123456789" * 26,
    "abcdefghijklmnopqrstuvwxyz" * 10,
    "qwertyuiopasdfghjklzxcvbnm" * 10,
    "qwertyuiop[]asdfghjkl;'zxcvbnm,./",
    "poiuytrewqlkjhgfdsamnbvcxz" * 10,
    "qwertzuiopasdfghjklyxcvbnm" * 10,
    "azertyuiopqsdfghjklmwxcvbn" * 10,
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/" * 6,
    "qazwsxedcrfvtgbyhnujmikolp" * 10,
    "1q2w3e4r5t6y7u8i9o0p" * 12,
)
# Each as it runs and backwards: a password that lies within one needs no guessing.
ROWS = tuple(run for row in _RUNS for run in (row, row[::-1]))
