"""Passwords anybody would try first; NIST SP 800-63B-4 section 3.1.1.2 asks for such a list."""

from __future__ import annotations

COMMON = frozenset(
    """
    password passw0rd p@ssword p@ssw0rd password1 password12 password123 password1234 password12345
    password123456 password1234567 password12345678 password123456789 password1234567890 passwordpassword
    mypassword mypassword123 mypassword1234567 thisismypassword thisisapassword thisisnotapassword
    yourpassword newpassword changeme changeme123 changeme1234567 changemechangeme changethispassword
    pleasechangeme pleasechangethis defaultpassword temporarypassword secretpassword secret123 topsecret
    administrator administrator1 administrator123 adminadmin admin123 admin1234 admin12345 admin123456
    administratoradministrator rootroot root1234 superuser superuser123 letmein letmein1 letmein123
    letmeinletmein letmeinplease opensesame opensesame123 trustno1 trustnoone iloveyou iloveyou1
    iloveyou123 iloveyou1234567 iloveyouforever iloveyousomuch iloveyouverymuch welcome welcome1 welcome123
    welcome12345678 welcometothejungle sunshine sunshine1 sunshine123 princess princess1 princess123
    football football1 football123 baseball baseball1 basketball superman superman123 batman123 starwars
    starwars123 maytheforcebewithyou pokemon1 pokemon123 whatever whatever1 computer computer1 computer123
    internet internet1 jennifer michelle michael1 jordan23 charlie1 liverpool liverpool1 chelsea1 arsenal1
    manchesterunited realmadrid barcelona mercedes ferrari1 corvette mustang1 harley123 dragon123 monkey123
    shadow123 master123 hello123 hello1234 helloworld helloworld123 helloworld1234567 freedom1 butterfly
    chocolate strawberry blink182 metallica slipknot nirvana1 november december february septembre
    correcthorsebatterystaple correct-horse-battery-staple correct.horse.battery.staple correcthorse
    batterystaple tobeornottobe tobeornottobethatisthequestion thequickbrownfox
    thequickbrownfoxjumpsoverthelazydog loremipsum loremipsumdolor loremipsumdolorsitamet
    supercalifragilisticexpialidocious antidisestablishmentarianism onceuponatime onceuponatimeinamerica
    abcdefghijklmnop1 abcd1234 abcde12345 abcdef123456 a1b2c3d4 a1b2c3d4e5f6g7h8 a1s2d3f4 1q2w3e4r 1q2w3e4r5t
    1q2w3e4r5t6y 1q2w3e4r5t6y7u8i9o0p q1w2e3r4 q1w2e3r4t5y6 qwer1234 qwerty12 qwerty123 qwerty1234
    qwerty12345 qwerty123456 qwerty123456789 qwertyuiop123456 qwertyuiop1234567890 qwerty123456qwerty
    zaq12wsx zaq1zaq1 zaq1xsw2 xsw21qaz 1qaz2wsx3edc4rfv! q1w2e3r4t5y6u7i8 asdfghjkl123456 google123
    posthouse posthouse1 posthouse123 posthouse1234567 posthouseposthouse posthousepassword posthouseadmin
    rabbitmq rabbitmq123 rabbitmqpassword raspberry raspberrypi raspberrypi1234 arduino123 thingspeak
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
