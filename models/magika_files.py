"""Files of known types, made on the spot: what their bytes look like is up to the real writers of each format."""

import gzip
import inspect
import io
import json
import sqlite3
import sys
import time
import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

LONG_AGO = time.gmtime(1_000_000_000)  # no clock: the same seed makes the same bytes


@dataclass(frozen=True, slots=True)
class Kind:
    what: str
    label: str  # Magika's name of the type
    make: Callable[[Random], bytes]


def _python(random: Random) -> bytes:
    module = random.choice((inspect, json, wave, gzip))
    return inspect.getsource(module).encode()


def _json(random: Random) -> bytes:
    orders = [{"id": n, "item": random.choice(("tea", "lamp", "coat")), "price": random.randint(1, 99)} for n in range(12)]
    return json.dumps({"customer": "Maria Keller", "paid": True, "orders": orders}, indent=2).encode()


def _html(random: Random) -> bytes:
    items = "\n".join(
        f'      <li class="item"><a href="/item/{n}.html">Item {n}</a> <span>{random.randint(1, 999)} EUR</span></li>'
        for n in range(10)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Catalogue</title>
    <link rel="stylesheet" href="/style.css">
    <script src="/basket.js" defer></script>
  </head>
  <body>
    <h1>Catalogue</h1>
    <p>Prices include <strong>delivery</strong>.<br>Questions? <a href="mailto:shop@example.com">Write to us</a>.</p>
    <ul id="items">
{items}
    </ul>
    <form action="/search" method="get"><input type="text" name="q"><button type="submit">Search</button></form>
    <footer><p>&copy; The shop</p></footer>
  </body>
</html>
""".encode()


def _csv(random: Random) -> bytes:
    rows = [f"2026-{n % 12 + 1:02d}-{n % 27 + 1:02d},{random.randint(1, 500)},{random.random():.3f},Vienna" for n in range(60)]
    return "\n".join(["date,orders,share,city", *rows, ""]).encode()


def _shell(random: Random) -> bytes:
    days = random.randint(3, 60)
    return f"""#!/bin/sh
set -eu
backup="$HOME/backup"
mkdir -p "$backup"
for file in "$@"; do
    if [ ! -r "$file" ]; then
        echo "cannot read $file" >&2
        exit 1
    fi
    tar -czf "$backup/$(basename "$file").tar.gz" "$file"
done
find "$backup" -name '*.tar.gz' -mtime +{days} -delete
echo "kept $(ls "$backup" | wc -l) archives"
""".encode()


def _sql(random: Random) -> bytes:
    rows = ",\n".join(f"  ({n}, 'customer {n}', {random.randint(10, 900)})" for n in range(15))
    table = "CREATE TABLE customer (\n  id INTEGER PRIMARY KEY,\n  name TEXT NOT NULL,\n  credit INTEGER DEFAULT 0\n);\n"
    query = "SELECT name, SUM(credit) AS total FROM customer GROUP BY name HAVING total > 100 ORDER BY total DESC;\n"
    return f"{table}\nINSERT INTO customer (id, name, credit) VALUES\n{rows};\n\n{query}".encode()


def _picture(kind: str, random: Random) -> bytes:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (160, 120), (random.randint(0, 255), 120, 200))
    for _ in range(20):
        centre, radius = (random.randint(0, 160), random.randint(0, 120)), random.randint(4, 30)
        ImageDraw.Draw(picture).circle(centre, radius, fill=(random.randint(0, 255), random.randint(0, 255), 80))
    file = io.BytesIO()
    picture.save(file, kind, creationDate=LONG_AGO, modDate=LONG_AGO)  # only PDF looks at the dates
    return file.getvalue()


def _executable(random: Random) -> bytes:
    with open(sys.executable, "rb") as file:  # the interpreter this runs in
        return file.read(1 << 20)


def _zip(random: Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            entry = zipfile.ZipInfo(f"report-{number}.txt", LONG_AGO[:6])
            archive.writestr(entry, "All quiet. " * random.randint(50, 500), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _sound(random: Random) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(random.randbytes(8_000))
    return file.getvalue()


def _database(random: Random) -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE city (name TEXT, people INTEGER)")
        database.executemany(
            "INSERT INTO city VALUES (?, ?)", [(f"city {n}", random.randint(1_000, 9_000_000)) for n in range(99)]
        )
        database.commit()
        content = database.serialize()
    database.close()
    return content


KINDS = (
    Kind("a module of Python's library", "python", _python),
    Kind("a PNG picture", "png", lambda random: _picture("PNG", random)),
    Kind("orders as JSON", "json", _json),
    Kind("the running interpreter", "elf", _executable),
    Kind("a web page", "html", _html),
    Kind("a JPEG picture", "jpeg", lambda random: _picture("JPEG", random)),
    Kind("a backup script", "shell", _shell),
    Kind("a PDF page", "pdf", lambda random: _picture("PDF", random)),
    Kind("a table of orders", "csv", _csv),
    Kind("a ZIP archive", "zip", _zip),
    Kind("database statements", "sql", _sql),
    Kind("a sound", "wav", _sound),
    Kind("a database", "sqlite", _database),
)
