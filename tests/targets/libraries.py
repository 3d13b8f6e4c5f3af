"""Computes in the library that its first argument names; prints "ready" once it does.  Runs in CPython 3.6.

Each spends its time in C code that Python calls, some of it in C code that calls Python back.
"""
# ruff: noqa: NPY002 - old releases of numpy have no Generator

import hashlib
import json
import random
import re
import sqlite3
import ssl
import sys
import zlib


def python() -> object:
    values = [number * 7919 % 1009 for number in range(2000)]
    return sorted(values, key=lambda value: -value), "".join(map(str, values)).split("7")


def sqlite3_() -> None:
    connection = sqlite3.connect(":memory:")
    connection.create_function("twice", 1, lambda value: value * 2)
    connection.execute("create table numbers (number integer, word text)")
    rows = [(number * 7919 % 1009, "word%d" % number) for number in range(1000)]
    connection.executemany("insert into numbers values (?, ?)", rows)
    connection.execute("create index by_word on numbers (word)")
    connection.execute("select twice(number), max(word) from numbers group by number order by 1").fetchall()
    connection.close()


def zlib_() -> object:
    text = b" ".join(b"%d" % (number * 7919 % 1009) for number in range(20000))
    return zlib.decompress(zlib.compress(text, 6)), zlib.crc32(text), zlib.adler32(text)


def hashlib_() -> None:
    for name in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b"):
        hashlib.new(name, b"x" * 200000).hexdigest()
    hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 500)


def tls(side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.options |= getattr(ssl, "OP_NO_TLSv1_3", 0)
    context.set_ciphers("AECDH:ADH:@SECLEVEL=0")  # without certificates
    return context


def ssl_() -> None:
    """A handshake and some data between two ends in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = tls(ssl.PROTOCOL_TLS_CLIENT if hasattr(ssl, "PROTOCOL_TLS_CLIENT") else ssl.PROTOCOL_TLS)
    client = asking.wrap_bio(back, there)
    answering = tls(ssl.PROTOCOL_TLS_SERVER if hasattr(ssl, "PROTOCOL_TLS_SERVER") else ssl.PROTOCOL_TLS)
    server = answering.wrap_bio(there, back, server_side=True)
    waiting = [client, server]
    for _ in range(8):
        waiting = [end for end in waiting if not shaken(end)]
    for _ in range(100):
        client.write(b"x" * 8000)
        server.read(8000)


def shaken(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


TEXT = " ".join("name%d=%d.%d;" % (number, number * 7, number % 13) for number in range(2000))


def re_() -> object:
    found = re.findall(r"(\w+?)=(\d+)\.(\d+)", TEXT)
    return len(found), re.sub(r"\d+", lambda match: match.group() + "0", TEXT)


def json_() -> object:
    data = {"key%d" % number: [number, number / 7, None, "é%d" % number] for number in range(2000)}
    return json.loads(json.dumps(data), object_hook=dict), json.dumps(data, indent=1)


def extension() -> None:
    import callbacks  # compiled for the tests that ask for it

    callbacks.compute(3000)
    for call in (callbacks.call, callbacks.call_alloca, callbacks.call_aligned, callbacks.call_qsort):
        call(lambda: callbacks.compute(500))
        call(lambda: sum(range(2000)))


def numpy() -> object:
    import numpy  # noqa: ICN001 - installed for the check that asks for it

    matrix = numpy.random.rand(300, 300)
    numpy.linalg.svd(matrix[:100, :100])
    numpy.sort(matrix @ matrix, axis=None)
    numpy.fft.fft2(matrix)
    return numpy.exp(numpy.sin(matrix)).sum(), numpy.apply_along_axis(lambda row: row.max(), 0, matrix)


def scipy() -> None:
    import numpy  # noqa: ICN001
    from scipy import integrate, optimize, sparse, spatial, stats

    integrate.quad(lambda x: x * x, 0, 3)
    integrate.solve_ivp(lambda _t, y: -y, (0, 5), [1.0, 2.0])
    optimize.minimize(lambda x: ((x - 1) ** 2).sum(), numpy.zeros(5), method="BFGS")
    optimize.root(lambda x: x**3 - 2, [1.0])
    spatial.cKDTree(numpy.random.rand(2000, 3)).query(numpy.random.rand(500, 3))
    sparse.linalg.spsolve(sparse.eye(500, format="csc") * 2, numpy.ones(500))
    stats.norm.cdf(numpy.random.rand(1000))


def mixture() -> None:
    random.choice((sqlite3_, zlib_, hashlib_, re_, json_, python))()


WORKLOADS = (python, sqlite3_, zlib_, hashlib_, ssl_, re_, json_, extension, numpy, scipy, mixture)


def main() -> None:
    work = {function.__name__.rstrip("_"): function for function in WORKLOADS}[sys.argv[1]]
    work()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        work()


main()
